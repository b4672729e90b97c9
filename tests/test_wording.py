"""Claims about how figures and gains are told: in which unit, with which sign, in which words."""

import pytest

from distill.budget import Outcome, at_least
from distill.deployment.naive import gains_over, naive_sentence
from distill.deployment.report.sentences import distillation_sentence
from distill.files import to_json
from distill.statistics.metrics import PairedComparison, estimate_from
from distill.statistics.scoring import METRICS, Classes, Labels, Numbers, scoring_of
from distill.tasks import Task, TaskKind
from distill.wording import (
    ERRORS,
    SHARES,
    gain_cells,
    gain_phrase,
    gain_range,
    metric_interval,
    metric_name,
    metric_text,
    metric_title,
)
from distill.wording import test_name as name_of_test

INFINITE = float("inf")


def task(kind):
    return Task(kind=kind, outputs=("a", "b"), mean=(0.0, 0.0), scale=(1.0, 1.0))


@pytest.mark.parametrize("kind", TaskKind)
def test_what_decides_is_a_share_or_an_error_here_as_where_it_is_computed(kind):
    for metric in METRICS[kind]:
        scoring = scoring_of(task(kind), metric)
        assert (metric in ERRORS, metric in SHARES) == (scoring.is_error, not scoring.is_error)


@pytest.mark.parametrize("scoring", [Classes(2), Labels(), Numbers(task("regression"), "mase")])
def test_every_figure_has_a_name_of_its_own_without_underscores(scoring):
    names = [metric_name(name) for name in scoring.figures]
    assert len({*names}) == len(names)
    assert not any("_" in name for name in names)


@pytest.mark.parametrize(
    ("name", "own", "title"),
    [
        ("accuracy", "accuracy", "Accuracy"),
        ("label_accuracy", "label accuracy", "Label accuracy"),
        ("rmse", "RMSE", "RMSE"),
        ("mean_average_precision", "mAP", "mAP"),
        ("macro_f1", "macro-F1", "macro-F1"),
    ],
)
def test_names_begin_a_title_as_names_do(name, own, title):
    assert (metric_name(name), metric_title(name)) == (own, title)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.98765, "98.77 %"),
        ("mean_average_precision", 1.0, "100.00 %"),
        ("rmse", 0.01234, "0.012"),
        ("rmse", 12.345, "12.3"),
        ("rmse", 45_678.9, "45,679"),
        ("mae", 0.0, "0.000"),
        ("r2", -0.25, "-0.250"),
        ("nll", 0.9999, "1.000"),
        ("smape", 13.37, "13.4"),
    ],
)
def test_shares_are_percentages_and_errors_are_in_units_of_their_own(name, value, text):
    assert metric_text(name, value) == text


def test_an_interval_names_its_unit_once():
    assert metric_interval("accuracy", [0.9, 0.95]) == "90.00 to 95.00 %"
    assert metric_interval("rmse", [0.5, 12.0]) == "0.500 to 12"
    for unknown in ([None, None], [-INFINITE, INFINITE]):
        assert metric_interval("rmse", unknown) == "unknown"


def test_a_gain_is_told_in_points_of_a_share_and_in_percent_of_an_error():
    gain = {"estimate": 0.031, "interval": [-0.012, 0.05]}
    assert gain_cells(gain) == ("+3.10", "-1.20 to +5.00")
    assert gain_cells(gain, 1) == ("+3.1", "-1.2 to +5.0")
    assert gain_phrase("accuracy", 0.031) == "+3.10 points of accuracy"
    assert gain_range("accuracy", gain["interval"]) == "-1.20 to +5.00"
    assert gain_phrase("rmse", 0.031) == "RMSE 3.10 % lower"
    assert gain_phrase("rmse", -0.2) == "RMSE 20.00 % higher"
    assert gain_range("rmse", gain["interval"]) == "-1.20 to 5.00 % lower"


def unbounded(**changes):
    """A gain of which nothing is known, as a stage leaves it in JSON."""
    gain = {"estimate": 0.4, "interval": (-INFINITE, 1.0), "p_value": 1.0, "num_samples": 9}
    return to_json(gain | changes)


def test_an_end_without_bound_is_told_and_claims_nothing():
    gain = unbounded()
    assert gain["interval"] == [None, 1.0]
    assert gain_cells(gain) == ("+40.00", "-∞ to +100.00")
    assert gain_range("rmse", gain["interval"]) == "-∞ to 100.00 % lower"
    said = distillation_sentence(gain, "rmse", 0.95)
    assert said.startswith("Distillation made no difference that this test set can show: RMSE")
    naive = {"reference": "last_value", "gains": {"student": gain}, "confidence": 0.99}
    assert naive_sentence(naive, "rmse").startswith("Whether anything beats the last value is not")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "The student beats nearest centroid: +2.00 points of accuracy (+1.00 to"),
        (-0.03, 0.01, "Whether the student beats nearest centroid: -1.00 points of accuracy ("),
        (-0.03, -0.01, "The student is worse than nearest centroid: -2.00 points of accuracy ("),
    ],
)
def test_it_is_said_of_every_task_whether_the_best_baseline_is_beaten(low, high, said):
    gain = {"estimate": (low + high) / 2, "interval": [low, high], "num_samples": 600}
    margins = {"student": {"gain_vs_baseline": gain}}
    evaluation = {"naive": None, "metric": "accuracy", "margins": margins}
    gains, sentence = gains_over("nearest_centroid", evaluation)
    assert gains == {"reference": "nearest_centroid", "student": gain}
    assert sentence.startswith(said)
    assert ("use that" in sentence) == (low < 0)


def test_an_error_beside_none_at_all_is_worse_without_bound():
    gain = unbounded(estimate=-INFINITE, interval=(-INFINITE, -INFINITE), p_value=0.01)
    assert (gain["estimate"], gain["interval"]) == (None, [None, None])
    assert gain_cells(gain) == ("-∞", "-∞ to -∞")
    assert gain_phrase("rmse", gain["estimate"]) == "RMSE infinitely higher"
    assert distillation_sentence(gain, "rmse", 0.95).startswith(
        "Distillation hurt: RMSE infinitely"
    )
    found = estimate_from(gain)
    assert at_least(found.estimate, -0.01, found.interval) is Outcome.FAIL
    doubtful = estimate_from(unbounded(estimate=-INFINITE, interval=(-INFINITE, 0.0)))
    assert at_least(doubtful.estimate, -0.01, doubtful.interval) is Outcome.INCONCLUSIVE


def test_a_sentence_on_distillation_is_in_the_words_of_its_metric():
    gain = {"estimate": 0.1, "interval": [0.05, 0.15], "p_value": 0.01, "num_samples": 9}
    assert distillation_sentence(gain, "rmse", 0.95) == (
        "Distillation helped: RMSE 10.00 % lower than the control's (95% interval 5.00 to 15.00 % "
        "lower, sign-flip test p = 0.01, 9 test samples)."
    )
    worse = gain | {"estimate": -0.1, "interval": [-0.15, -0.05]}
    said = distillation_sentence(worse, "mae", 0.9)
    assert said.startswith("Distillation hurt: MAE 10.00 % higher than the control's (90% interval")
    assert said.endswith("Ship the control, or change the loss.")


def test_the_test_behind_a_p_value_is_named():
    paired = PairedComparison(
        estimate=0.1, interval=(0.0, 0.2), p_value=0.03, num_samples=9,
        num_only_first_correct=2, num_only_second_correct=1,
    )  # fmt: skip
    assert name_of_test(to_json(paired)) == "McNemar"
    assert name_of_test({"estimate": 0.1, "interval": [0, 0.2]}) == "sign-flip test"
