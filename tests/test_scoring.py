"""Claims about the figures of classes, labels and numbers: each against scikit-learn or by hand."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scored import (
    ALONE,
    CLASSES,
    EVERY,
    LEVELS,
    PAIR,
    RANGES,
    STEPS,
    TAGS,
    UNITS,
    classes,
    forecasts,
    numbers,
    ranges,
    tags,
)
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    r2_score,
)

from distill.errors import UsageError
from distill.statistics.scoring import (
    METRICS,
    Classes,
    Labels,
    Numbers,
    Quantiles,
    Truth,
    scoring_of,
)
from distill.tasks import Task


def estimates(found):
    return {name: value.estimate for name, value in found.items()}


@pytest.fixture(params=EVERY)
def case(request, rng):
    """A scoring, two models' answers of which the first are better, and the truth."""
    scoring, make = EVERY[request.param]
    return scoring, *make(rng)


def test_the_metric_is_that_of_all_marks_together(case):
    scoring, first, second, truth = case
    for answers in (first, second):
        found = scoring.score(answers, truth, confidence=0.95)
        value = scoring.value(scoring.marks(answers, truth))
        assert found[scoring.metric].estimate == pytest.approx(value)


def test_figures_come_in_their_order_and_hold_their_estimates(case):
    scoring, first, _, truth = case
    found = scoring.score(first, truth, confidence=0.9)
    assert list(found) == [name for name in scoring.figures if name in found]
    assert scoring.figures[0] == scoring.metric
    for figure in found.values():
        assert figure.interval[0] <= figure.estimate <= figure.interval[1]


def test_a_gain_is_the_difference_of_shares_or_the_part_of_an_error_that_is_gone(case):
    scoring, first, second, truth = case
    marks = [scoring.marks(answers, truth) for answers in (first, second)]
    ours, theirs = map(scoring.value, marks)
    expected = 1 - ours / theirs if scoring.is_error else ours - theirs
    found = scoring.compare(*marks, blocks=truth.blocks, confidence=0.95)
    assert found.estimate == pytest.approx(expected)
    assert found.interval[0] < expected < found.interval[1]
    assert found.num_samples == len(truth.labels)
    assert expected > 0  # the first answers with less noise
    assert scoring.compare(*marks[::-1], blocks=truth.blocks, confidence=0.95).estimate < 0


def test_a_model_beside_itself_gains_nothing(case):
    scoring, first, _, truth = case
    marks = scoring.marks(first, truth)
    found = scoring.compare(marks, marks, blocks=truth.blocks, confidence=0.95)
    assert found.estimate == 0
    assert found.interval[0] <= 0 <= found.interval[1]


def test_marks_of_some_rows_are_some_of_the_marks(case):
    scoring, first, _, truth = case
    rows = np.arange(0, len(truth.labels), 3)
    some = scoring.marks(first[rows], truth.take(rows))
    np.testing.assert_allclose(some, scoring.marks(first, truth)[rows])


def test_one_training_pooled_is_worth_what_it_is_worth_alone(case):
    scoring, first, second, truth = case
    marks = [scoring.marks(answers, truth) for answers in (first, second)]
    for own in marks:
        assert scoring.value(scoring.pooled(own[None])) == pytest.approx(scoring.value(own))


def test_classes_are_scored_as_by_scikit_learn(rng):
    logits, _, truth = classes(rng)
    labels, said = truth.labels, logits.argmax(axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = estimates(Classes(4).score(logits, truth, confidence=0.95))
    assert found.pop("ece") > 0
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(labels, said),
            "macro_f1": f1_score(labels, said, average="macro"),
            "nll": log_loss(labels, probabilities),
        }
    )
    bare = Classes(4).score(said, truth, confidence=0.95)
    assert estimates(bare) == {name: found[name] for name in ("accuracy", "macro_f1")}
    np.testing.assert_array_equal(Classes(4).marks(said, truth), said == labels)


def test_classes_are_compared_by_mcnemars_test(rng):
    first, second, truth = classes(rng)
    ours, theirs = (own.argmax(axis=1) == truth.labels for own in (first, second))
    found = Classes(4).compare(ours, theirs, blocks=None, confidence=0.95)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    expected = stats.binomtest(only_ours, only_ours + only_theirs).pvalue
    assert found.p_value == pytest.approx(expected)


def test_labels_are_scored_as_by_scikit_learn(rng):
    logits, _, truth = tags(rng)
    labels, said = truth.labels, logits > 0
    probabilities = 1 / (1 + np.exp(-logits))
    found = estimates(Labels().score(logits, truth, confidence=0.95))
    columns = zip(labels.T, probabilities.T, strict=True)
    assert found == pytest.approx(
        {
            "label_accuracy": 1 - hamming_loss(labels, said),
            "subset_accuracy": accuracy_score(labels, said),
            "micro_f1": f1_score(labels, said, average="micro"),
            "macro_f1": f1_score(labels, said, average="macro"),
            "mean_average_precision": average_precision_score(labels, logits),
            "nll": np.mean([log_loss(truth, own) for truth, own in columns]),
        }
    )


def test_errors_of_several_numbers_are_counted_in_units_of_their_own(rng):
    first, _, truth = numbers(rng, UNITS)
    found = estimates(Numbers(PAIR, "rmse").score(first, truth, confidence=0.95))
    ours, labels = first / UNITS, truth.labels / UNITS
    assert found == pytest.approx(
        {
            "rmse": np.sqrt(mean_squared_error(labels, ours)),
            "mae": mean_absolute_error(labels, ours),
            "r2": r2_score(labels, ours),
        }
    )


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_another_unit_of_one_of_several_numbers_changes_nothing(rng, metric):
    first, second, truth = numbers(rng, UNITS)
    cents = np.array([1.0, 100.0])
    other = Task(kind=PAIR.kind, outputs=PAIR.outputs, mean=PAIR.mean, scale=tuple(UNITS * cents))
    ways = [(PAIR, np.ones(2)), (other, cents)]
    gains, scores = [], []
    for task, factor in ways:
        scoring, own = Numbers(task, metric), Truth(labels=truth.labels * factor)
        pair = (scoring.marks(answers * factor, own) for answers in (first, second))
        gains.append(scoring.compare(*pair, blocks=None, confidence=0.95).estimate)
        scores.append(estimates(scoring.score(first * factor, own, confidence=0.95)))
    assert gains[1] == pytest.approx(gains[0], rel=1e-5)
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


@pytest.mark.parametrize(("task", "units"), [(ALONE, [1000.0]), (STEPS, [3.0] * 3)])
def test_errors_of_one_unit_are_told_in_it(rng, task, units):
    first, _, truth = numbers(rng, np.array(units))
    found = Numbers(task, "mae").score(first, truth, confidence=0.95)
    assert list(found) == ["mae", "rmse", "r2"]  # what decides comes first
    assert found["mae"].estimate == pytest.approx(np.abs(first - truth.labels).mean())


def test_mase_divides_each_rows_errors_by_what_its_series_moves_in_a_step(rng):
    first, _, truth = forecasts(rng)
    scaled = np.abs(first - truth.labels) / truth.naive_error[:, None]
    found = estimates(Numbers(STEPS, "mase").score(first, truth, confidence=0.95))
    assert found["mase"] == pytest.approx(scaled.mean())
    size = (np.abs(first) + np.abs(truth.labels)) / 2
    assert found["smape"] == pytest.approx(100 * (np.abs(first - truth.labels) / size).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(mean_squared_error(truth.labels, first)))


def test_a_series_that_never_moved_counts_in_no_mase(rng):
    first, second, truth = forecasts(rng)
    naive = truth.naive_error.copy()
    naive[::4] = 0
    still, moving = Truth(labels=truth.labels, naive_error=naive), np.flatnonzero(naive)
    scoring = Numbers(STEPS, "mase")
    expected = (np.abs(first - truth.labels)[moving] / naive[moving, None]).mean()
    assert scoring.score(first, still, confidence=0.95)["mase"].estimate == pytest.approx(expected)
    marks = [scoring.marks(answers, still) for answers in (first, second)]
    assert scoring.value(marks[0]) == pytest.approx(expected)
    some = [scoring.marks(a[moving], still.take(moving)) for a in (first, second)]
    assert scoring.compare(*marks, blocks=None, confidence=0.95).estimate == pytest.approx(
        1 - scoring.value(some[0]) / scoring.value(some[1])
    )


@pytest.mark.parametrize("naive", [None, np.zeros(150)], ids=["no forecasts", "nothing moves"])
def test_what_has_no_mase_is_not_judged_by_it(rng, naive):
    answers, _, truth = numbers(rng, np.ones(3), naive_error=naive)
    scoring = Numbers(STEPS, "mase")
    with pytest.raises(UsageError, match=r"metric=mase.*rmse or mae"):
        scoring.score(answers, truth, confidence=0.95)
    with pytest.raises(UsageError, match=r"metric=mase.*rmse or mae"):
        scoring.marks(answers, truth)
    assert "mase" not in Numbers(STEPS, "rmse").score(answers, truth, confidence=0.95)


def test_quantiles_are_scored_as_by_scikit_learn_in_units_of_their_own(rng):
    answers, _, truth = ranges(rng)
    found = estimates(Quantiles(RANGES).score(answers, truth, confidence=0.95))
    quantiles = answers.reshape(-1, 2, 3) / UNITS[:, None]
    labels = truth.labels / UNITS
    losses = [
        mean_pinball_loss(labels[:, d], quantiles[:, d, q], alpha=level)
        for d in range(2)
        for q, level in enumerate(LEVELS)
    ]
    inside = (quantiles[..., 0] <= labels) & (labels <= quantiles[..., 2])
    assert found == pytest.approx(
        {
            "pinball": np.mean(losses),
            "coverage": inside.mean(),
            "width": (quantiles[..., 2] - quantiles[..., 0]).mean(),
            "mae": mean_absolute_error(labels, quantiles[..., 1]),
            "rmse": np.sqrt(mean_squared_error(labels, quantiles[..., 1])),
        }
    )


def test_without_a_median_nothing_is_said_of_its_errors(rng):
    answers, _, truth = ranges(rng)
    outer = dataclasses.replace(RANGES, quantiles=(0.1, 0.8))
    some = answers.reshape(-1, 2, 3)[..., [0, 2]].reshape(-1, 4)
    found = Quantiles(outer).score(some, truth, confidence=0.95)
    assert list(found) == ["pinball", "coverage", "width"]


def test_two_classifiers_agree_on_a_row_if_they_say_the_same_class(rng):
    first, second, _ = classes(rng)
    found = Classes(4).agreement(first, second, blocks=None, confidence=0.95)
    same = first.argmax(axis=1) == second.argmax(axis=1)
    expected = stats.binomtest(int(same.sum()), len(same)).proportion_ci(method="wilson")
    assert found.estimate == same.mean()
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_two_taggers_agree_on_a_row_if_they_say_the_same_labels(rng):
    first, second, _ = tags(rng)
    found = Labels().agreement(first, second, blocks=None, confidence=0.95).estimate
    assert found == np.mean([set(*np.nonzero(a > 0)) == set(*np.nonzero(b > 0))
                             for a, b in zip(first, second, strict=True)])  # fmt: skip
    assert Labels().agreement(first, first, blocks=None, confidence=0.95).estimate == 1


def test_numbers_agree_as_far_as_the_ones_explain_the_others(rng):
    first, second, _ = numbers(rng, UNITS)
    scoring = Numbers(PAIR, "rmse")
    found = scoring.agreement(first, second, blocks=None, confidence=0.95)
    assert found.estimate == pytest.approx(r2_score(second, first))
    assert found.interval[0] < found.estimate < found.interval[1]
    assert scoring.agreement(first, first, blocks=None, confidence=0.95).estimate == 1
    against = scoring.agreement(-first, second, blocks=None, confidence=0.95)
    assert (against.estimate, against.interval) == (0, (0, 0))  # no less than nothing


def test_trainings_are_pooled_row_by_row(rng):
    right = rng.random((3, 50)) < 0.7
    np.testing.assert_allclose(Classes(4).pooled(right), right.sum(axis=0) / 3)
    labels = rng.random((3, 50, 2)) < 0.7
    np.testing.assert_allclose(Labels().pooled(labels), labels.sum(axis=0) / 3)
    errors = rng.normal(size=(3, 50, 2))
    squared, absolute = (Numbers(PAIR, metric) for metric in ("rmse", "mae"))
    assert squared.value(squared.pooled(errors)) == pytest.approx(np.sqrt((errors**2).mean()))
    assert absolute.value(absolute.pooled(errors)) == pytest.approx(np.abs(errors).mean())
    assert squared.pooled(errors).shape == (50, 2)


def test_shares_of_trainings_that_are_right_are_compared_too(rng):
    first, second = rng.random((2, 400)) < np.array([[0.8], [0.6]])
    pooled = [Classes(4).pooled(np.stack([own, own])) for own in (first, second)]
    found = Classes(4).compare(*pooled, blocks=None, confidence=0.95)
    alone = Classes(4).compare(first, second, blocks=None, confidence=0.95)
    assert found.estimate == pytest.approx(alone.estimate)
    assert found.interval == pytest.approx(alone.interval)  # twice the same says nothing new


@pytest.mark.parametrize(
    ("task", "metrics", "figures"),
    [
        (CLASSES, ["accuracy"], Classes),
        (TAGS, ["label_accuracy"], Labels),
        (PAIR, ["rmse", "mae", "mase"], Numbers),
        (RANGES, ["pinball"], Quantiles),
    ],
)
def test_each_task_has_metrics_of_its_own_and_refuses_those_of_others(task, metrics, figures):
    assert scoring_of(task).metric == metrics[0]
    for metric in metrics:
        scoring = scoring_of(task, metric)
        assert isinstance(scoring, figures)
        assert scoring.metric == metric
    others = {"pinball", *(name for own in METRICS.values() for name in own)} - set(metrics)
    for metric in [*others, "f1"]:
        with pytest.raises(UsageError, match=f"{metric}.*Leave it out to take {metrics[0]}"):
            scoring_of(task, metric)
