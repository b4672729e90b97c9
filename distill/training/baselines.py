"""What a model must beat: predictors that need no training run.

Each is a function of the training and test images that returns test logits (log-probabilities
where it has any). Knows nothing of networks.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from distill.errors import UsageError, nearest
from distill.metrics import Estimate, score, score_predictions
from distill.training.data.images import ImageData, ImageSplit, chunks

Logits = NDArray[np.float64]

MAX_FIT_SAMPLES = 5000
MAX_SIDE = 32


def majority_class(train: ImageSplit, test: ImageSplit, num_classes: int) -> NDArray[np.int64]:
    """Always answer the commonest class of the training set."""
    return np.full(len(test), np.bincount(train.labels, minlength=num_classes).argmax())


def class_prior(train: ImageSplit, test: ImageSplit, num_classes: int) -> Logits:
    """Answer the training set's class shares, with add-one smoothing (Laplace)."""
    counts = np.bincount(train.labels, minlength=num_classes) + 1
    return np.tile(np.log(counts / counts.sum()), (len(test), 1))


def nearest_centroid(train: ImageSplit, test: ImageSplit, num_classes: int) -> NDArray[np.int64]:
    """Answer the class whose mean training image is nearest in pixels."""
    pixels = _pixels(train)
    present = np.flatnonzero(np.bincount(train.labels, minlength=num_classes))
    centroids = np.stack([pixels[train.labels == c].mean(axis=0) for c in present])
    return present[cdist(_pixels(test), centroids).argmin(axis=1)]


def logistic_regression(train: ImageSplit, test: ImageSplit, num_classes: int) -> Logits:
    """Fit a linear model on pixels.

    On at most `MAX_FIT_SAMPLES` training images drawn by class at random: a baseline must take
    seconds. The solver's stop at 200 iterations is part of the baseline.
    """
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(train))[:MAX_FIT_SAMPLES]
    train = train.take(np.sort(chosen))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=200).fit(_pixels(train), train.labels)
    logits = np.full((len(test), num_classes), -30.0)  # a class never seen is all but excluded
    logits[:, model.classes_] = model.predict_log_proba(_pixels(test))
    return logits


BASELINES: tuple[Callable[..., NDArray], ...] = (
    majority_class,
    class_prior,
    nearest_centroid,
    logistic_regression,
)


def score_baselines(
    data: ImageData, names: Sequence[str], *, confidence: float
) -> tuple[dict[str, dict[str, Estimate]], dict[str, NDArray[np.int64]]]:
    """Score the named baselines on the test set.

    Returns:
        Per baseline its metrics with intervals, and its test predictions [N].

    Raises:
        UsageError: a name is unknown.
    """
    known = {baseline.__name__: baseline for baseline in BASELINES}
    scores, predictions = {}, {}
    num_classes = len(data.classes)
    for name in names:
        if name not in known:
            raise UsageError(f"Unknown baseline `{name}`. {nearest(name, known)}")
        output = known[name](data.train, data.test, num_classes)
        if output.ndim == 2:
            scores[name] = score(output, data.test.labels, confidence=confidence)
            predictions[name] = output.argmax(axis=1)
        else:
            scores[name] = score_predictions(
                output, data.test.labels, num_classes, confidence=confidence
            )
            predictions[name] = output
    return scores, predictions


def _pixels(split: ImageSplit) -> NDArray[np.float32]:
    """Flatten images to [N, features] in 0..1, averaged in blocks down to `MAX_SIDE` a side."""
    height, width, channels = split.images.shape[1:]
    block = -(-max(height, width) // MAX_SIDE)
    rows, columns = height // block, width // block
    flat = np.empty((len(split), rows * columns * channels), np.float32)
    start = 0
    for images in chunks(split.images):
        cut = images[:, : rows * block, : columns * block]
        blocks = cut.reshape(len(images), rows, block, columns, block, channels)
        means = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        flat[start : start + len(images)] = means.reshape(len(images), -1)
        start += len(images)
    return flat
