"""Baselines asked about the test set: their answers checked and scored, their cost measured.

A baseline is a heuristic, which is fitted and then asked, or any function of the training images,
the test images and the number of classes. Knows nothing of what they do.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distill.errors import UserError
from distill.statistics.metrics import Estimate
from distill.statistics.scoring import Scoring
from distill.tasks import Task, TaskKind, class_numbers
from distill.training.baselines.heuristics import Fitted
from distill.training.baselines.quantiles import with_error_quantiles
from distill.training.data.splits import Data

NUM_CALLS = 100
MAX_SECONDS = 0.5  # of timing one baseline

Result = dict[str, Any]


def score_baselines(
    data: Data, baselines: Mapping[str, Any], scoring: Scoring, *, confidence: float
) -> tuple[dict[str, Result], dict[str, NDArray[Any]]]:
    """Score baselines on the test set.

    Args:
        data: the splits.
        baselines: by name, each a heuristic (see `heuristics`) or a function
            `(train, test, num_outputs)` that returns class numbers or names [N], logits [N, C], or
            numbers in their own units, [N] or [N, D], or quantiles, [N, D * Q]. A heuristic of
            numbers is given quantiles of its errors around them (`quantiles`).
        scoring: of the data's task.
        confidence: of every interval.

    Returns:
        Per baseline its figures with intervals and its cost (None for what is not known), and its
        answers to the test set: class numbers [N], else as they are, [N, C].

    Raises:
        UserError: a baseline raises, or what it returns are no answers for the test set.
    """
    scores, kept = {}, {}
    for name, baseline in baselines.items():
        with _named(name):
            answers, cost = _ask(baseline, data, confidence)
        answers = check_answers(answers, len(data.test), data.task, f"the baseline `{name}`")
        scores[name] = {**scoring.score(answers, data.test.truth, confidence=confidence), **cost}
        kept[name] = kept_of(answers, data)
    return scores, kept


def kept_of(answers: NDArray[Any], data: Data) -> NDArray[Any]:
    """Reduce answers to what comparing them takes: of classes the likeliest, [N]."""
    if data.task.kind is TaskKind.CLASSIFICATION and answers.ndim == 2:
        return answers.argmax(axis=1)
    return answers


def check_answers(answers: Any, num_samples: int, task: Task, where: str) -> NDArray[Any]:
    """Return answers as class numbers [N], finite logits [N, C] or finite numbers [N, D].

    Raises:
        UserError: they have another shape, are no classes, or are not finite.
    """
    found, names = np.asarray(answers), task.answers
    if task.kind is TaskKind.REGRESSION and len(names) == 1 and found.ndim == 1:
        found = found[:, None]
    if task.kind is TaskKind.CLASSIFICATION and found.shape == (num_samples,):
        return class_numbers(found, names, where)
    if found.shape != (num_samples, len(names)) or found.dtype.kind not in "iuf":
        size = f"[{num_samples}, {len(names)}]"
        wanted = {
            TaskKind.CLASSIFICATION: f"class numbers or names [{num_samples}], or logits {size}",
            TaskKind.MULTI_LABEL: f"logits {size}",
            TaskKind.REGRESSION: f"{'quantiles' if task.quantiles else 'numbers'} {size}",
        }
        raise UserError(
            f"Expected {wanted[task.kind]}, one for each test sample, from {where} but got "
            f"{found.dtype} {list(found.shape)}. Return what is expected."
        )
    if not np.isfinite(found).all():
        raise UserError(
            f"Expected finite answers from {where} but {(~np.isfinite(found)).any(axis=1).sum()} "
            f"of {num_samples} samples have NaN or an infinite one. Mend it."
        )
    return found


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of which baseline an error is, and where in its code."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if "site-packages" not in f.filename and f.filename != __file__]
        where = f" ({Path(own[0].filename).name}, line {own[0].lineno})" if own else ""
        raise UserError(
            f"Expected answers from the baseline `{name}` but it ended with "
            f"{type(error).__name__}: {error}{where}. Mend it, or leave it out of `baselines`."
        ) from error


def _ask(baseline: Any, data: Data, confidence: float) -> tuple[Any, Result]:
    start = time.perf_counter()
    if not hasattr(baseline, "fit"):  # a function does all at once: what one sample costs is hidden
        answers = baseline(data.train, data.test, len(data.classes))
        return answers, {
            "measured_through": "Python, all test samples in one call",
            "fit_seconds": time.perf_counter() - start,
            "size_bytes": None,
            "p50_latency_ms": None,
            "p95_latency_ms": None,
        }
    fitted: Fitted = baseline.fit(data.train, len(data.task.outputs))
    if data.task.quantiles:
        fitted = with_error_quantiles(fitted, data)
    seconds = time.perf_counter() - start
    asked = data.test.records if fitted.reads_records else data.test.inputs
    answers = fitted.answer(asked)
    median, high = _latencies(fitted.answer, asked, confidence)
    return answers, {
        "measured_through": "scikit-learn and numpy; latency in this process, single samples",
        "fit_seconds": seconds,
        "size_bytes": fitted.size_bytes,
        "p50_latency_ms": median,
        "p95_latency_ms": high,
    }


def _latencies(
    answer: Callable[[Any], Any], images: Any, confidence: float
) -> tuple[Estimate, Estimate]:
    """Time single calls in this process; median and 95th percentile, with intervals by ranks."""
    taken: list[int] = []
    began = time.perf_counter()
    for call in range(NUM_CALLS + 3):
        one = images[call % len(images) : call % len(images) + 1]
        start = time.perf_counter_ns()
        answer(one)
        taken.append(time.perf_counter_ns() - start)
        if len(taken) > 20 and time.perf_counter() - began > MAX_SECONDS:
            break
    milliseconds = np.array(taken[3:]) / 1e6  # the first calls warm up
    median, high = (_quantile(milliseconds, share, confidence) for share in (0.5, 0.95))
    return median, high


def _quantile(values: NDArray[np.float64], share: float, confidence: float) -> Estimate:
    """Estimate a quantile; an end that so few values do not bound is infinite."""
    low, high = stats.quantile_test(values, p=share).confidence_interval(confidence)
    return Estimate(
        estimate=float(np.quantile(values, share)),
        interval=(0.0 if np.isnan(low) else float(low), np.inf if np.isnan(high) else float(high)),
    )
