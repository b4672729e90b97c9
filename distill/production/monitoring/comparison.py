"""What production is asked and answers, laid over what it was when the model was made.

Of each thing, how far it is from what it was, the chance that luck alone does as much, and what it
does to accuracy. Knows figures and arrays; knows nothing of the log.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.production.monitoring.drift import (
    Counts,
    Drift,
    by_classifier,
    discoveries,
    of_counts,
    of_points,
    population_stability,
)
from distill.production.reference import TOPS, looks
from distill.statistics.metrics import log_softmax
from distill.tables.columns import Column, Kind, Records, is_missing
from distill.tasks import Task, TaskKind

MAX_SHUFFLES = 20_000
AT_ONCE = 64  # images, which take many times their bytes while they are looked at
OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Something about each row that can be counted by bin.

    Attributes:
        name: for people.
        group: input or answer.
        statistic: `psi` of categories, `ks` of bins in order.
        reference: how many rows were in each bin, [K].
        bins: the bin of each row now, [n].
        names: of the bins; empty where they are numbers in order.
    """

    name: str
    group: str
    statistic: str
    reference: Counts
    bins: NDArray[np.int64]
    names: tuple[str, ...] = ()

    @property
    def counts(self) -> Counts:
        """How many rows are in each bin now, [K]."""
        return np.bincount(self.bins, minlength=len(self.reference))


@dataclass(frozen=True, kw_only=True)
class Changed:
    """How one thing has changed.

    Attributes:
        name: of the thing.
        group: input, answer or together.
        statistic: psi, ks, mmd or classifier: what the test is of.
        distance: by that statistic.
        p_value: by shuffling.
        stands_out: beyond what many comparisons give by luck.
        psi: the customary index; None of things that are not counted.
        effect: by how much accuracy is changed because rows lie in other bins than before, by what
            is known of each bin now; None where nothing is.
        most: the bin that has grown or shrunk most, for people.
    """

    name: str
    group: str
    statistic: str
    distance: float
    p_value: float
    stands_out: bool
    psi: float | None = None
    effect: float | None = None
    most: str | None = None


def features_of_images(figures: dict[str, Any], images: NDArray[np.uint8]) -> list[Feature]:
    """Brightness, contrast and sharpness of images, [n, H, W, C] uint8."""
    found = []
    pieces = (images[at : at + AT_ONCE] for at in range(0, len(images), AT_ONCE))
    seen = np.concatenate([looks(piece) for piece in pieces], axis=1)
    for (name, top), values in zip(TOPS.items(), seen, strict=True):
        shares = np.array(figures[name]["histogram"]["shares"])
        places = np.clip(values / top * len(shares), 0, len(shares) - 1).astype(np.int64)
        found.append(_feature(name, "input", "ks", shares, figures["count"], places))
    return found


def features_of_columns(
    figures: dict[str, Any], columns: Sequence[Column], records: Records
) -> list[Feature]:
    """Columns of a table, [n]; of a window its last step."""
    found = []
    for column in columns:
        known = figures["columns"][column.name]
        values = records[column.name]
        values = values[:, -1] if values.ndim == 2 else values
        gaps = is_missing(column, values)
        if column.kind is Kind.CATEGORY:
            names = tuple(known["shares"])
            place = {name: number for number, name in enumerate(names)}
            places = np.array([place.get(str(value), len(names)) for value in values], np.int64)
            listed = np.array([known["shares"][name] for name in names])
            shares = np.append(listed, max(1 - listed.sum(), 0.0))
            found.append(
                _feature(
                    column.name, "input", "psi", shares, figures["count"], places, (*names, OTHER)
                )
            )
            continue
        found.append(_numeric(column.name, "input", known, figures["count"], values, gaps))
    return found


def _numeric(
    name: str,
    group: str,
    known: dict[str, Any],
    count: int,
    values: NDArray[Any],
    gaps: NDArray[np.bool_],
) -> Feature:
    """Count numbers between the deciles that they had, and gaps apart."""
    edges, present = np.array(known["edges"]), np.array(known["shares"] or [1.0])
    shares = np.append(known["gaps"], (1 - known["gaps"]) * present)
    places = 1 + np.searchsorted(edges, np.nan_to_num(values.astype(float)), side="right")
    places[gaps] = 0
    return _feature(name, group, "ks", shares, count, places)


def features_of_answers(
    figures: dict[str, Any], task: Task, answers: NDArray[np.floating]
) -> list[Feature]:
    """Predicted class and confidence of logits, [n, C]; which labels hold; or numbers, [n, K]."""
    if task.kind is TaskKind.CLASSIFICATION:
        return _of_classes(figures, task.outputs, answers)
    count = figures["count"]
    if task.kind is TaskKind.MULTI_LABEL:
        return [
            _feature(
                name,
                "answer",
                "psi",
                np.array([1 - figures["given_shares"][name], figures["given_shares"][name]]),
                count,
                (held > 0).astype(np.int64),
                ("not given", "given"),
            )
            for name, held in zip(task.outputs, answers.T, strict=True)
        ]
    return [
        _numeric(name, "answer", figures["outputs"][name], count, values, ~np.isfinite(values))
        for name, values in zip(task.answers, answers.T, strict=True)
    ]


def _of_classes(
    figures: dict[str, Any], classes: Sequence[str], logits: NDArray[np.floating]
) -> list[Feature]:
    """Count the predicted class and the confidence of logits, [n, C]."""
    shares = np.array(figures["confidence"]["histogram"]["shares"])
    top = np.exp(log_softmax(logits).max(axis=1))
    places = np.clip(top * len(shares), 0, len(shares) - 1).astype(np.int64)
    by_class, count = np.array(figures["predicted_shares"]), figures["count"]
    return [
        _feature(
            "predicted class",
            "answer",
            "psi",
            by_class,
            count,
            logits.argmax(axis=1),
            tuple(classes),
        ),
        _feature("confidence", "answer", "ks", shares, count, places),
    ]


def compare(
    features: Sequence[Feature],
    spaces: Sequence[tuple[str, NDArray[np.floating], NDArray[np.floating]]],
    *,
    rate: float,
    goodness: NDArray[np.floating] | None = None,
    seed: int = 0,
) -> list[Changed]:
    """Test all at once, those first that matter most for accuracy.

    Args:
        features: counted one by one.
        spaces: names and points of the reference, [N, D], and now, [n, D]: all things together.
        rate: chance that anything stands out in an unchanged world, and share of false ones among
            those that do.
        goodness: what is known of how good the answer to each row is, [n]: whether the teacher
            agrees, or the confidence. None where nothing is known.
        seed: of the shuffles.
    """
    rng = np.random.default_rng(seed)
    num = len(features) + 2 * len(spaces)
    # Enough that one thing alone can stand out among all of them.
    shuffles = int(np.clip(math.ceil(20 * num / rate), 999, MAX_SHUFFLES))
    drifts: list[tuple[Drift, Feature | None]] = [
        (
            of_counts(
                one.name, one.reference, one.counts, statistic=one.statistic, rng=rng,
                num_shuffles=shuffles,
            ),
            one,
        )
        for one in features
    ]  # fmt: skip
    for name, before, now in spaces:
        for test in (of_points, by_classifier):
            drifts.append(
                (test(name, before, now, rng=rng, num_shuffles=min(shuffles, 2999)), None)
            )
    keys = [f"{drift.name}, {drift.statistic}" for drift, _ in drifts]
    p_values = {key: drift.p_value for key, (drift, _) in zip(keys, drifts, strict=True)}
    outstanding = discoveries(p_values, rate)
    found = [
        _changed(drift, feature, key in outstanding, goodness)
        for key, (drift, feature) in zip(keys, drifts, strict=True)
    ]
    return sorted(found, key=lambda own: (not own.stands_out, -abs(own.effect or 0), own.p_value))


def _feature(
    name: str,
    group: str,
    statistic: str,
    shares: NDArray[np.float64],
    count: int,
    places: NDArray[np.int64],
    names: tuple[str, ...] = (),
) -> Feature:
    return Feature(
        name=name,
        group=group,
        statistic=statistic,
        reference=np.rint(shares * count).astype(np.int64),
        bins=places,
        names=names,
    )


def _changed(
    drift: Drift,
    feature: Feature | None,
    stands_out: bool,
    goodness: NDArray[np.floating] | None,
) -> Changed:
    psi = effect = most = None
    group = "together"
    if feature is not None:
        group, now = feature.group, feature.counts
        psi = float(population_stability(feature.reference, now))
        moved = now / now.sum() - feature.reference / feature.reference.sum()
        if feature.names:
            largest = int(np.abs(moved).argmax())
            most = f"{feature.names[largest]} {moved[largest] * 100:+.1f} points"
        if goodness is not None:
            sums = np.bincount(feature.bins, goodness, minlength=len(now))
            # A bin that nobody is in now is as good as all are: nothing is known of it.
            means = np.where(now > 0, sums / np.maximum(now, 1), goodness.mean())
            effect = float(moved @ means)
    return Changed(
        name=drift.name,
        group=group,
        statistic=drift.statistic,
        distance=drift.distance,
        p_value=drift.p_value,
        stands_out=stands_out,
        psi=psi,
        effect=effect,
        most=most,
    )
