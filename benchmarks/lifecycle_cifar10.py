"""The estimates and the strategies once more, where images are photographs: CIFAR-10.

The teacher is a resnet20, trained once; the students have learnt from its stored answers, three
seeds each: a weak one of 10,000 parameters that is taught for a short time, a strong one of 78,000.
All are trained by `distill` itself in run folders that are kept, and what is finished there is not
trained again. Answers are those of exported files. The test set is the stream; the reference are
the training set's validation rows.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lifecycle_active import SEEDS as ACTIVE_SEEDS
from lifecycle_active import Scene, compared
from lifecycle_estimates import CONCEPT, NUM_DRAWS, World, covered, held
from numpy.typing import NDArray
from scipy import ndimage
from search_parts import run

from distill.deployment.export import export_onnx
from distill.runtime import OnnxModel
from distill.statistics.metrics import log_softmax
from distill.training.data.images import ImageData
from distill.training.data.sources import parquet_images
from distill.training.fit import load_weights
from distill.training.models import CifarResNet, PlainCNN, build_classifier

SEEDS = range(3)
TEACHER_EPOCHS, NUM_VIEWS = 6, 2
STUDENTS = {"weak": ("tiny_cnn", 3), "strong": ("resnet8", 3)}  # network, epochs
NETWORKS: dict[str, Callable[..., torch.nn.Module]] = {
    "resnet20": partial(CifarResNet, depth=20),
    "resnet8": partial(CifarResNet, depth=8),
    "tiny_cnn": partial(PlainCNN, widths=(16, 24, 28)),
}
QUICK = (
    "soft_labels=none",
    "+trainer.limit_train_batches=20",
    "+teacher_training.trainer.limit_train_batches=20",
)
ACTIVE_WORLDS = ("new population", "rotation")
NUM_OLD, NUM_POOL = 400, 5000  # of active selection; the other 5,000 test rows are scored

Images, Labels = NDArray[np.uint8], NDArray[np.int64]
Change = Callable[[Images, Labels], tuple[Images, Labels]]


def shifts(rng: np.random.Generator) -> dict[str, Change]:
    """Worlds by name: images [n, 32, 32, 3] and labels, to those of the world.

    Noise is of severity 3, strong noise, blur and contrast are of severity 5 of CIFAR-10-C
    (Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", 2019); the others are those of the digits, or as near as colours allow.
    """

    def each(change: Callable[[NDArray], NDArray]) -> Change:
        return lambda x, y: (_bytes(change(x.astype(np.float32) / 255)), y)

    def contrast(x: NDArray) -> NDArray:
        means = x.mean(axis=(1, 2), keepdims=True)
        return (x - means) * 0.15 + means

    def prior(x: Images, y: Labels) -> tuple[Images, Labels]:
        kept = rng.random(len(y)) < np.where(y < 5, 0.1, 1.0)
        return x[kept], y[kept]

    def population(x: NDArray) -> NDArray:
        new = rng.random(len(x)) < 0.5  # people who take close-ups, in grey
        near = ndimage.affine_transform(x, [1, 22 / 32, 22 / 32, 1], [0, 5, 5, 0], order=1)
        grey = near.mean(axis=3, keepdims=True)
        return np.where(new[:, None, None, None], grey, x)

    def concept(x: Images, y: Labels) -> tuple[Images, Labels]:
        swapped = np.arange(10)
        swapped[[3, 5]] = [5, 3]  # cats are now called dogs
        return x, swapped[y]

    return {
        "none": lambda x, y: (x, y),
        "noise": each(lambda x: x + rng.normal(0, 0.08, x.shape)),
        "strong noise": each(lambda x: x + rng.normal(0, 0.1, x.shape)),
        "blur": each(lambda x: ndimage.gaussian_filter(x, (0, 1, 1, 0))),
        "contrast": each(contrast),
        "rotation": each(lambda x: ndimage.rotate(x, 20, (1, 2), reshape=False, order=1)),
        "class prior": prior,
        "new population": each(population),
        "sensor": each(lambda x: np.round(np.minimum(x * [1.15, 1.0, 0.7], 1) * 7) / 7),
        CONCEPT: concept,
    }


def _bytes(x: NDArray) -> Images:
    return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)


def estimate_rows(cifar10: str, work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Hold estimates without labels against the truth, and count what intervals cover."""
    data, teacher, students = _trained(cifar10, work, quick=quick)
    worlds = list(_worlds(data, teacher, students, 500 if quick else None))
    estimated, checks = held(worlds, "CIFAR-10, ")
    audited, more = covered(worlds, 40 if quick else NUM_DRAWS, "CIFAR-10, ")
    return [{"data": "cifar10"} | row for row in estimated + audited], checks + more


def _worlds(
    data: ImageData, teacher: OnnxModel, students: dict[str, list[OnnxModel]], num_rows: int | None
) -> Iterable[World]:
    """Let every network see the same rows of each world: the seeds are the students'."""
    known, now = data.validation.take(np.arange(5000)[:num_rows]), data.test
    now = now.take(np.arange(len(now))[:num_rows])
    asked = teacher.predict(known.inputs)
    before = {
        (name, seed): (student.predict(known.inputs), asked, known.labels)
        for name, each in students.items()
        for seed, student in enumerate(each)
    }
    for world, change in shifts(np.random.default_rng(100)).items():
        x, y = change(now.inputs, now.labels)
        said = teacher.predict(x)
        for (name, seed), reference in before.items():
            yield seed, name, world, reference, (students[name][seed].predict(x), said, y)


def active_rows(cifar10: str, work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Compare strategies where the student's last layers alone are trained anew."""
    data, teacher, _ = _trained(cifar10, work, quick=quick)
    weights = _folder(work, quick=quick) / "strong" / "train" / "student" / "last.pt"
    worlds = ACTIVE_WORLDS[: 1 if quick else None]
    num_seeds = 1 if quick else len(ACTIVE_SEEDS)
    body = _exported(STUDENTS["strong"][0], weights, headless=True)
    scenes = _scenes(data, teacher, body, worlds, num_seeds)
    return compared(scenes, "CIFAR-10", _folder(work, quick=quick))


def _scenes(
    data: ImageData, teacher: OnnxModel, body: OnnxModel, worlds: Iterable[str], num_seeds: int
) -> Iterable[Scene]:
    """See each world through the strong student's penultimate features, in the old one's units."""
    known = data.validation
    features = body.predict(known.inputs)
    middle, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    answers = teacher.predict(known.inputs)
    for world in worlds:
        x, y = shifts(np.random.default_rng(100))[world](data.test.inputs, data.test.labels)
        seen, said = (body.predict(x) - middle) / spread, teacher.predict(x)
        for seed in list(ACTIVE_SEEDS)[:num_seeds]:
            rng = np.random.default_rng(seed)
            old = rng.permutation(len(known))[:NUM_OLD]
            pool, test = np.split(rng.permutation(len(y)), [NUM_POOL])
            yield Scene(
                seed=seed,
                world=world,
                old=(features[old] - middle) / spread,
                old_targets=np.exp(log_softmax(answers[old])),
                pool=seen[pool],
                pool_labels=y[pool],
                teacher_logits=said[pool],
                test=seen[test],
                test_labels=y[test],
            )


def _trained(
    cifar10: str, work: Path, *, quick: bool
) -> tuple[ImageData, OnnxModel, dict[str, list[OnnxModel]]]:
    """Train whatever is not trained yet; return the data, the teacher and the students."""
    folder = _folder(work, quick=quick)
    given = ["experiment=cifar10", f"data.root={cifar10}"]
    if quick:
        given += QUICK
    else:
        given += [f"soft_labels.num_views={NUM_VIEWS}", f"soft_labels.path={folder / 'labels'}"]
    epochs = [f"teacher_training.trainer.max_epochs={1 if quick else TEACHER_EPOCHS}"]
    epochs += ["teacher_training.trainer.precision=bf16-mixed", "action=teacher"]
    run("train", folder / "teacher", [*given, *epochs])
    taught = folder / "teacher" / "train" / "teacher" / "best.pt"
    students = {}
    num_seeds = 1 if quick else len(SEEDS)
    for name, (network, num_epochs) in STUDENTS.items():
        own = [f"student={network}", f"trainer.max_epochs={1 if quick else num_epochs}"]
        own += [f"seeds={num_seeds}", f"teacher.checkpoint={taught}", "action=student"]
        run("train", folder / name, [*given, *own])
        places = ["student", *(f"student/seed_{seed}" for seed in range(1, num_seeds))]
        # The last epoch: the best one was chosen on the rows that are the reference here.
        paths = [folder / name / "train" / place / "last.pt" for place in places]
        students[name] = [_exported(network, path) for path in paths]
    data = parquet_images(root=cifar10, validation_fraction=0.1, seed=0)
    return data, _exported("resnet20", taught), students


def _folder(work: Path, *, quick: bool) -> Path:
    return work / ("cifar10_quick" if quick else "cifar10")


def _exported(name: str, path: Path, *, headless: bool = False) -> OnnxModel:
    """Read weights back, what normalises is among them, and export the network.

    Without its head it answers what that is given, [n, 64].
    """
    model = build_classifier(
        NETWORKS[name], num_classes=10, image_shape=(32, 32, 3), mean=[0] * 3, std=[1] * 3
    )
    model.load_state_dict(load_weights(path)["state_dict"])
    if headless:
        model.network.head = torch.nn.Identity()
    file = path.with_suffix(".headless.onnx" if headless else ".onnx")
    export_onnx(model.eval(), (32, 32, 3), file)
    return OnnxModel(file)
