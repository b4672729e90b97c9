"""Estimates of accuracy in worlds that change, against the truth; on scikit-learn's digits.

The teacher is a mixture of an SVM and extremely randomised trees, the students are networks of one
hidden layer that have learnt from its probabilities: a weak one from few rows, a strong one. What
is made of the answers in each world, `held` and `covered`, is the same on other data.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import check
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.svm import SVC

from distill.production.monitoring.audit import audited, labels_alone
from distill.production.monitoring.label_free import (
    agreement_bounds,
    chance_of,
    confidence_based,
    disagreement_based,
    threshold_based,
)
from distill.statistics.metrics import fit_temperature

SEEDS, STUDENTS = range(5), {"weak": (12, 150), "strong": (64, 600)}  # hidden units, rows
LIMITS = {"weak": 0.5, "strong": 0.75}  # of the disagreement estimate's error over CBPE's
NUM_LABELS, NUM_DRAWS = 100, 400
CONCEPT = "concept: a fifth of the classes swapped"

Images, Labels = NDArray[np.float64], NDArray[np.int64]
Answers = tuple[NDArray[Any], NDArray[Any], Labels]  # the student's [n, C], the teacher's, labels
World = tuple[int, str, str, Answers, Answers]  # seed, student, world, on the reference, now


def shifts(rng: np.random.Generator) -> dict[str, Callable[[Images, Labels], tuple]]:
    """Worlds by name: images [n, 8, 8] from 0 to 1 and labels, to those of the world."""

    def each(change: Callable[[Images], Images]) -> Callable[[Images, Labels], tuple]:
        return lambda x, y: (np.clip(change(x), 0, 1), y)

    def prior(x: Images, y: Labels) -> tuple:
        kept = rng.random(len(y)) < np.where(y < 5, 0.1, 1.0)
        return x[kept], y[kept]

    def population(x: Images, y: Labels) -> tuple:
        new = rng.random(len(y)) < 0.5  # people who write with a thin, slanted pen
        thin = np.stack([ndimage.affine_transform(i, [[1, 0], [0.35, 1]], [0, -1.2]) for i in x])
        return np.where(new[:, None, None], np.clip(thin * 0.8, 0, 1), x), y

    def concept(x: Images, y: Labels) -> tuple:
        swapped = np.arange(10)
        swapped[[3, 8]] = [8, 3]
        return x, swapped[y]

    return {
        "none": lambda x, y: (x, y),
        "noise": each(lambda x: x + rng.normal(0, 0.3, x.shape)),
        "strong noise": each(lambda x: x + rng.normal(0, 0.45, x.shape)),
        "blur": each(lambda x: ndimage.gaussian_filter(x, (0, 0.9, 0.9))),
        "contrast": each(lambda x: 0.35 * x + 0.2),
        "rotation": each(lambda x: ndimage.rotate(x, 20, (1, 2), reshape=False)),
        "class prior": prior,
        "new population": population,
        "sensor": each(lambda x: np.round((0.7 * x + 0.25) * 3) / 3),
        CONCEPT: concept,
    }


def flat(images: Images) -> NDArray[np.float64]:
    """Lay pixels in a row, [n, H, W] to [n, H W]."""
    return images.reshape(len(images), -1)


def _student(hidden: int, x: NDArray, soft: NDArray, seed: int) -> Callable[[Images], NDArray]:
    """Train a network on probabilities; return what it answers, logits [n, 10]."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
    )
    inputs, targets = (torch.tensor(a, dtype=torch.float32) for a in (x, soft))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(400):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()

    def answer(images: Images) -> NDArray:
        with torch.no_grad():
            return net(torch.tensor(flat(images), dtype=torch.float32)).numpy()

    return answer


def digits_teacher(x: NDArray, y: Labels, seed: int) -> Callable[[Images], NDArray]:
    """Fit the mixture; return what it answers, probabilities [n, 10]."""
    svm = SVC(gamma=0.03, C=10, probability=True, random_state=seed).fit(x, y)
    trees = ExtraTreesClassifier(200, random_state=seed).fit(x, y)

    def answer(images: Images) -> NDArray:
        rows = flat(images)
        return (svm.predict_proba(rows) + trees.predict_proba(rows)) / 2

    return answer


def _worlds(num_seeds: int) -> Iterable[World]:
    digits = load_digits()
    images, labels = digits.images / 16.0, digits.target.astype(np.int64)
    for seed in list(SEEDS)[:num_seeds]:
        order = np.random.default_rng(seed).permutation(len(labels))
        taught, known, now = order[:700], order[700:1200], order[1200:]
        teacher = digits_teacher(flat(images[taught]), labels[taught], seed)
        soft = teacher(images[taught])
        for name, (hidden, rows) in STUDENTS.items():
            student = _student(hidden, flat(images[taught[:rows]]), soft[:rows], seed)
            reference = student(images[known]), teacher(images[known]), labels[known]
            rng = np.random.default_rng(100 + seed)
            for world, change in shifts(rng).items():
                x, y = change(images[now], labels[now])
                yield seed, name, world, reference, (student(x), teacher(x), y)


def estimate_rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Hold estimates without labels against the truth, on digits."""
    return held(_worlds(1 if quick else len(SEEDS)))


def held(worlds: Iterable[World], data: str = "") -> tuple[list[dict], list[dict]]:
    """Hold estimates without labels against the truth; `data` opens the names of checks."""
    found: list[dict] = []
    for seed, student, world, reference, now in worlds:
        (known, known_teacher, known_labels), (logits, teacher, labels) = reference, now
        right = known.argmax(axis=1) == known_labels
        temperature = fit_temperature(known_teacher, known_labels)
        before = chance_of(known_teacher / temperature, known.argmax(axis=1))
        likely = chance_of(teacher / temperature, logits.argmax(axis=1))
        agreed = known_teacher.argmax(axis=1) == known.argmax(axis=1)
        agree = teacher.argmax(axis=1) == logits.argmax(axis=1)
        low, high = agreement_bounds(agree, float((teacher.argmax(axis=1) != labels).mean()))
        truth = float((logits.argmax(axis=1) == labels).mean())
        found.append(
            {
                "seed": seed,
                "student": student,
                "world": world,
                "truth": truth,
                "teacher": float((teacher.argmax(axis=1) == labels).mean()),
                "confidence": confidence_based(known, right, logits).estimate,
                "threshold": threshold_based(known, right, logits).estimate,
                "disagreement": disagreement_based(right, before, likely).estimate,
                "counted": disagreement_based(right, agreed, agree).estimate,
                "bounds_hold": bool(low <= truth <= high),
            }
        )
    rows, checks = [], []
    for student in STUDENTS:
        own = [row for row in found if row["student"] == student]
        covariate = [row for row in own if row["world"] != CONCEPT]
        errors = {
            name: float(np.mean([abs(row[name] - row["truth"]) for row in covariate]))
            for name in ("confidence", "threshold", "disagreement", "counted")
        }
        rows.append({"student": student, "errors": errors, "worlds": _by_world(own)})
        ratio = errors["disagreement"] / errors["confidence"]
        name = f"{data}{student}: disagreement's error over CBPE's"
        checks.append(check(name, ratio, LIMITS[student], at_most=True))
    share = float(np.mean([row["bounds_hold"] for row in found]))
    checks.append(check(f"{data}bounds by the teacher's true error that hold", share, 1.0))
    return rows, checks


def _by_world(rows: list[dict]) -> list[dict]:
    names = ("truth", "teacher", "confidence", "threshold", "disagreement", "counted")
    worlds = dict.fromkeys(row["world"] for row in rows)
    return [
        {"world": world}
        | {
            name: float(np.mean([row[name] for row in rows if row["world"] == world]))
            for name in names
        }
        for world in worlds
    ]


def audit_rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Count how often intervals by few labels hold the truth, on digits."""
    return covered(_worlds(1 if quick else len(SEEDS)), 40 if quick else NUM_DRAWS)


def covered(worlds: Iterable[World], draws: int, data: str = "") -> tuple[list[dict], list[dict]]:
    """Draw labels again and again; count how often intervals hold the truth."""
    rng, rows = np.random.default_rng(0), []
    inside: dict[tuple[str, str], list[bool]] = {}
    saved: dict[tuple[str, str], list[float]] = {}
    alone_inside: dict[tuple[str, str], list[bool]] = {}
    for _, student, world, _, (logits, teacher, labels) in worlds:
        right = logits.argmax(axis=1) == labels
        agree = teacher.argmax(axis=1) == logits.argmax(axis=1)
        truth, key = float(right.mean()), (student, world)
        for _ in range(draws):
            # With putting back: the rows stand for a world that goes on.
            drawn = rng.integers(0, len(right), NUM_LABELS)
            others = rng.integers(0, len(right), 1000)
            found = audited(right[drawn], agree[drawn], agree[others])
            alone = labels_alone(right[drawn])
            inside.setdefault(key, []).append(found.interval[0] <= truth <= found.interval[1])
            alone_inside.setdefault(key, []).append(alone.interval[0] <= truth <= alone.interval[1])
            saved.setdefault(key, []).append(found.saving)
    for key in inside:
        rows.append(
            {
                "student": key[0],
                "world": key[1],
                "num_labels": NUM_LABELS,
                "coverage": float(np.mean(inside[key])),
                "coverage_alone": float(np.mean(alone_inside[key])),
                "labels_worth": float(np.median(saved[key])),
            }
        )
    least = min(row["coverage"] for row in rows)
    name = f"{data}coverage of 95 % intervals by 100 labels, the least"
    return rows, [check(name, least, 0.93)]
