"""Claims about columns that leak: those that do are named, those that are merely good are not."""

import numpy as np
import pytest

from distill.tables.columns import Column, Kind, make_records
from distill.tasks import Task, TaskKind
from distill.training.data.leaks import find_leaks

CLASSES = Task(kind=TaskKind.CLASSIFICATION, outputs=("no", "yes"))
NUMBER = Task(kind=TaskKind.REGRESSION, outputs=("price",))
DAY = 86_400_000


def found(raw, kinds, task, labels, times=None):
    columns = [Column(name=name, kind=kind) for name, kind in kinds.items()]
    leaks = find_leaks(columns, make_records(raw), task, labels, times=times)
    return {(leak.name, leak.column) for leak in leaks}


@pytest.mark.parametrize("seed", range(3))
def test_a_column_that_is_the_label_in_disguise_is_named_and_a_good_one_is_not(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 600)
    good = labels + rng.normal(0, 0.4, 600)  # right nine times of ten
    raw = {
        "good": good,
        "copy": labels * 3.0 + rng.uniform(0, 0.1, 600),
        "cancelled": np.where(labels == 1, 1.7e12 + rng.integers(0, 10**9, 600), np.nan),
        "reason": np.where(labels == 1, rng.choice(["price", "moved"], 600), ""),
        "noise": rng.normal(size=600),
    }
    kinds = dict.fromkeys(raw, Kind.NUMBER) | {"reason": Kind.CATEGORY}
    names = {column for _, column in found(raw, kinds, CLASSES, labels)}
    assert names == {"copy", "cancelled", "reason"}


def test_of_numbers_a_column_that_explains_nearly_all_is_named():
    rng = np.random.default_rng(0)
    price = rng.lognormal(size=(2000, 1)).astype(np.float32)
    raw = {"tax": price[:, 0] * 0.19, "size": price[:, 0] + rng.normal(0, 1, 2000)}
    kinds = dict.fromkeys(raw, Kind.NUMBER)
    assert found(raw, kinds, NUMBER, price) == {("near_perfect_predictor", "tax")}


def test_many_different_texts_do_not_explain_rows_that_they_have_not_seen():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 900)
    raw = {"key": np.array([f"k{i}" for i in range(900)])}
    assert found(raw, {"key": Kind.CATEGORY}, CLASSES, labels) == set()


def test_a_column_that_stops_varying_is_named_with_its_day_and_a_rare_one_is_not():
    rng = np.random.default_rng(0)
    n = 1000
    times = rng.permutation(n) * DAY
    late = times >= 800 * DAY
    raw = {
        "stops": np.where(late, 7.0, rng.normal(size=n)),
        "ends": np.where(late, np.nan, rng.normal(size=n)),
        "rare": (times == 300 * DAY).astype(float),
        "goes_on": rng.normal(size=n),
        "word": np.where(late, "", rng.choice(["a", "b"], n)),
    }
    kinds = dict.fromkeys(raw, Kind.NUMBER) | {"word": Kind.CATEGORY}
    labels = rng.integers(0, 2, n)
    names = found(raw, kinds, CLASSES, labels, times)
    assert names == {("constant_after_a_date", name) for name in ("stops", "ends", "word")}
    columns = [Column(name="stops", kind=Kind.NUMBER)]
    (leak,) = find_leaks(
        columns, make_records({"stops": raw["stops"]}), CLASSES, labels, times=times
    )
    assert "always 7.0 from 1972-03-11 on (200 rows)" in leak.text
