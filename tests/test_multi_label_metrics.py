import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
)

from distill.errors import UserError
from distill.statistics.multi_label_metrics import score_multi_label


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 80), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_scores_agree_with_scikit_learn(n, num_labels, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, num_labels)).round(1)  # with ties
    labels = (rng.uniform(size=logits.shape) < 0.5).astype(int)
    labels[0] = 1
    given = logits > 0
    found = {k: v.estimate for k, v in score_multi_label(logits, labels).items()}
    probabilities = 1 / (1 + np.exp(-logits))
    f1 = {"y_true": labels, "y_pred": given.astype(int), "zero_division": 0}
    if num_labels == 1:
        f1 |= {"labels": [1]}
    assert found == pytest.approx(
        {
            "subset_accuracy": accuracy_score(labels, given),
            "label_accuracy": 1 - hamming_loss(labels, given),
            "micro_f1": f1_score(**f1, average="micro"),
            "macro_f1": f1_score(**f1, average="macro"),
            "mean_average_precision": average_precision_score(labels, logits),
            "nll": log_loss(labels.ravel(), probabilities.ravel(), labels=[0, 1]),
        }
    )


def test_average_precision_is_that_of_the_labels_that_a_row_has(rng):
    logits, labels = rng.normal(size=(20, 2)), np.stack([np.arange(20) % 2, np.zeros(20)], axis=1)
    found = score_multi_label(logits, labels)["mean_average_precision"].estimate
    assert found == pytest.approx(average_precision_score(labels[:, 0], logits[:, 0]))
    assert "mean_average_precision" not in score_multi_label(logits, np.zeros((20, 2)))


@pytest.mark.slow
def test_intervals_are_those_of_a_plain_bootstrap_of_scikit_learn(rng):
    labels = rng.integers(0, 2, (300, 3))
    logits = labels + rng.normal(size=labels.shape) - 0.5
    found = score_multi_label(logits, labels)
    draws = rng.integers(0, 300, (600, 300))
    plain = {
        "mean_average_precision": [average_precision_score(labels[d], logits[d]) for d in draws],
        "macro_f1": [f1_score(labels[d], logits[d] > 0, average="macro") for d in draws],
    }
    for name, values in plain.items():
        low, high = np.quantile(values, [0.025, 0.975])
        interval = found[name].interval
        assert interval[1] - interval[0] == pytest.approx(high - low, rel=0.15)
        assert interval == pytest.approx((low, high), abs=0.2 * (high - low))


def test_nll_is_finite_at_huge_logits():
    found = score_multi_label(np.array([[1e4], [-1e4]]), np.array([[0], [0]]))
    assert found["nll"].estimate == pytest.approx(5e3)


def test_nan_and_unequal_shapes_are_refused():
    with pytest.raises(UserError, match="the first at row 2"):
        score_multi_label(np.array([[0.0], [0], [np.inf]]), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="Expected paired"):
        score_multi_label(np.zeros((3, 2)), np.zeros((3, 1)))


def test_many_rows_are_scored(rng):
    labels = rng.integers(0, 2, (300_000, 4))
    found = score_multi_label(labels - 0.5, labels)
    assert found["mean_average_precision"].estimate == 1
