"""Claims about what a network is trained for on labels, and by what its best epoch is chosen."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from sklearn.metrics import accuracy_score, hamming_loss, log_loss, mean_squared_error

from distill.tasks import TaskKind
from distill.training.objectives import loss_on_labels, validation_figures

CLASSIFICATION, MULTI_LABEL, REGRESSION = TaskKind


@pytest.fixture
def outputs(rng):
    return rng.normal(size=(40, 5)).astype(np.float32) * 3


@pytest.fixture
def targets(rng):
    """Targets of each task for 40 examples."""
    return {
        CLASSIFICATION: rng.integers(0, 5, 40),
        MULTI_LABEL: (rng.random((40, 5)) < 0.4).astype(np.float32),
        REGRESSION: rng.normal(size=(40, 5)).astype(np.float32),
    }


def losses(kind, outputs, target):
    return loss_on_labels(kind)(torch.tensor(outputs), torch.tensor(target))


def figures(kind, outputs, target):
    found, selection = validation_figures(kind, torch.tensor(outputs), torch.tensor(target))
    return {name: float(value) for name, value in found.items()}, float(selection)


def test_a_class_costs_its_negative_log_likelihood(outputs, targets):
    target = targets[CLASSIFICATION]
    expected = -log_softmax(outputs, axis=1)[np.arange(40), target]
    found = losses(CLASSIFICATION, outputs, target)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_labels_cost_the_negative_log_likelihood_of_all_together(outputs, targets):
    target = targets[MULTI_LABEL]
    shares = np.where(target > 0, expit(outputs), expit(-outputs))
    found = losses(MULTI_LABEL, outputs, target)
    np.testing.assert_allclose(found, -np.log(shares).sum(axis=1), rtol=1e-5)


def test_numbers_cost_half_their_mean_squared_error(outputs, targets):
    target = targets[REGRESSION]
    expected = 0.5 * ((outputs - target) ** 2).mean(axis=1)
    np.testing.assert_allclose(losses(REGRESSION, outputs, target), expected, rtol=1e-5)


def test_the_best_constant_answer_is_the_mean_of_the_numbers(targets):
    target = torch.tensor(targets[REGRESSION])
    answer = target.mean(dim=0).requires_grad_()
    loss_on_labels(REGRESSION)(answer.expand(40, 5), target).mean().backward()
    torch.testing.assert_close(answer.grad, torch.zeros(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", TaskKind)
def test_losses_are_in_full_precision_whatever_the_network_computes_in(kind, outputs, targets):
    low = torch.tensor(outputs).bfloat16()
    found = loss_on_labels(kind)(low, torch.tensor(targets[kind]))
    assert found.dtype == torch.float32
    assert found.shape == (40,)
    expected = loss_on_labels(kind)(low.float(), torch.tensor(targets[kind]))
    torch.testing.assert_close(found, expected)


def test_validation_of_classes_logs_accuracy_and_nll(outputs, targets):
    target = targets[CLASSIFICATION]
    found, _ = figures(CLASSIFICATION, outputs, target)
    probabilities = np.exp(log_softmax(outputs.astype(np.float64), axis=1))
    accuracy = accuracy_score(target, outputs.argmax(axis=1))
    nll = log_loss(target, probabilities, labels=range(5))
    assert found == pytest.approx({"accuracy": accuracy, "nll": nll}, rel=1e-5)


def test_validation_of_labels_logs_means_over_rows_and_labels(outputs, targets):
    target = targets[MULTI_LABEL]
    found, _ = figures(MULTI_LABEL, outputs, target)
    nll = np.mean([log_loss(t, p) for t, p in zip(target.T, expit(outputs).T, strict=True)])
    accuracy = 1 - hamming_loss(target, outputs > 0)
    assert found == pytest.approx({"label_accuracy": accuracy, "nll": nll}, rel=1e-4)


def test_validation_of_numbers_logs_and_selects_by_the_mean_squared_error(outputs, targets):
    target = targets[REGRESSION]
    found, selection = figures(REGRESSION, outputs, target)
    expected = mean_squared_error(target, outputs)
    assert found == pytest.approx({"mse": expected}, rel=1e-5)
    assert selection == pytest.approx(-expected, rel=1e-5)


@pytest.mark.parametrize("kind", [CLASSIFICATION, MULTI_LABEL])
def test_one_more_right_is_worth_any_likelihood(kind, targets):
    target = targets[kind]
    sign = np.eye(5)[target] if kind is CLASSIFICATION else target
    sure = (2 * sign - 1).astype(np.float32) * 9
    unsure = sure / 90
    worse = sure.copy()
    worse[0] = np.roll(worse[0], 1) if kind is CLASSIFICATION else worse[0] * [-1, 1, 1, 1, 1]
    (_, best), (_, hesitant), (_, wrong) = (figures(kind, o, target) for o in (sure, unsure, worse))
    assert best > hesitant > wrong


@pytest.mark.parametrize("kind", [CLASSIFICATION, MULTI_LABEL])
def test_epochs_that_are_right_alike_are_told_apart_by_likelihood(kind, targets):
    target = targets[kind]
    sign = np.eye(5)[target] if kind is CLASSIFICATION else target
    all_wrong = -(2 * sign - 1).astype(np.float32)
    selections = [figures(kind, scale * all_wrong, target)[1] for scale in (0.01, 0.05, 0.1)]
    assert selections == sorted(selections, reverse=True)
    assert len({*selections}) == 3


def test_classes_may_be_shares_where_images_are_mixed(outputs):
    shares = torch.full((40, 5), 0.2)
    found = loss_on_labels(CLASSIFICATION)(torch.tensor(outputs), shares)
    expected = -log_softmax(outputs, axis=1).mean(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
