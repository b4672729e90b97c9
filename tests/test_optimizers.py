import copy

import pytest
import torch
from torch import nn

from distill.errors import UserError
from distill.training.optimizers import DistillationOrientedSGD

GRADIENTS = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(optimizer, parameter, with_task):
    for total, task in zip(GRADIENTS, GRADIENTS.flip(0), strict=True):
        parameter.grad = total.clone()
        if with_task:
            optimizer.set_task_gradients([task])
        optimizer.step()
    return parameter.detach()


def parameter():
    return nn.Parameter(torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(("delta", "with_task"), [(0.0, True), (0.075, False)])
def test_without_a_difference_or_without_two_losses_it_is_sgd(delta, with_task):
    first, second = parameter(), parameter()
    own = DistillationOrientedSGD([first], 0.1, momentum=0.9, delta=delta, weight_decay=0.01)
    torchs = torch.optim.SGD([second], 0.1, momentum=0.9, weight_decay=0.01)
    if not with_task:
        torch.testing.assert_close(run(own, first, False), run(torchs, second, False))
        return
    # The two parts are updated in turn, and decay is counted once: equal up to rounding.
    found, expected = run(own, first, True), run(torchs, second, False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_two_momenta_are_those_of_the_paper():
    weight = parameter()
    found = run(
        DistillationOrientedSGD([weight], 0.1, momentum=0.9, delta=0.05, weight_decay=0.02),
        weight,
        True,
    )
    p = torch.ones(2, 3, dtype=torch.float64)
    task_velocity = distillation_velocity = torch.zeros_like(p)
    for total, task in zip(GRADIENTS, GRADIENTS.flip(0), strict=True):
        task_velocity = 0.85 * task_velocity + task + 0.02 * p
        distillation_velocity = 0.95 * distillation_velocity + total - task
        p = p - 0.1 * (task_velocity + distillation_velocity)
    torch.testing.assert_close(found, p, rtol=1e-12, atol=1e-12)


def test_its_state_survives_a_round_trip():
    first, second = parameter(), parameter()
    own = DistillationOrientedSGD([first], 0.1)
    run(own, first, True)
    copied = DistillationOrientedSGD([second], 0.1)
    second.data.copy_(first.data)
    copied.load_state_dict(copy.deepcopy(own.state_dict()))
    assert torch.equal(run(own, first, True), run(copied, second, True))


@pytest.mark.parametrize(("momentum", "delta"), [(0.95, 0.075), (0.05, 0.1)])
def test_a_momentum_outside_0_to_1_is_refused(momentum, delta):
    with pytest.raises(UserError, match="`momentum` plus or minus `delta`"):
        DistillationOrientedSGD([parameter()], 0.1, momentum=momentum, delta=delta)


def test_gradients_for_other_parameters_are_refused():
    with pytest.raises(ValueError, match="Expected 1 gradients but got 2"):
        DistillationOrientedSGD([parameter()], 0.1).set_task_gradients([None, None])
