"""Claims about where the processes of a training stand in their random numbers."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.training import random_states
from distill.training.random_states import RandomStates

CPU, SECOND = (SimpleNamespace(device=torch.device(name)) for name in ("cpu", "cuda:1"))


def process(rank):
    return SimpleNamespace(global_rank=rank)


def drawn():
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


@pytest.fixture
def saved(monkeypatch):
    """What the first of two processes writes, and what each draws next."""
    states, expected = [], []
    for number in (1, 2):
        seed(number)
        with monkeypatch.context() as patch:
            patch.setattr(random_states, "_of_all_processes", lambda own: [states.append(own)])
            RandomStates().on_train_epoch_end(process(number - 1), CPU)
        expected.append(drawn())
    first = RandomStates()
    monkeypatch.setattr(random_states, "_of_all_processes", lambda own: states)
    first.on_train_epoch_end(process(0), CPU)
    return first.state_dict(), expected


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_goes_on_with_states_of_its_own(saved, rank):
    state, expected = saved
    resumed = RandomStates()
    resumed.load_state_dict(state)
    seed(7)
    resumed.on_train_batch_start(process(rank), CPU, None, 0)
    assert drawn() == expected[rank]


def test_a_process_that_was_not_there_keeps_its_states(saved):
    resumed = RandomStates()
    resumed.load_state_dict(saved[0])
    seed(7)
    expected = drawn()
    seed(7)
    resumed.on_train_batch_start(process(2), CPU, None, 0)
    assert drawn() == expected


@pytest.fixture
def devices(monkeypatch):
    """The generators of a machine's devices: here numbers."""
    states = {torch.device("cuda", number): 10 + number for number in (0, 1)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({device: state})
    )
    return states


def test_the_state_of_the_device_that_is_trained_on_is_kept_alone(devices):
    own = RandomStates()
    own.on_train_epoch_end(process(0), SECOND)
    assert own.state_dict()["cuda"] == [[11]]
    resumed = RandomStates()
    resumed.load_state_dict(own.state_dict())
    devices.clear()  # of another machine, with one device
    only = SimpleNamespace(device=torch.device("cuda", 0))
    resumed.on_train_batch_start(process(0), only, None, 0)
    assert devices == {only.device: 11}


def test_a_checkpoint_with_the_states_of_one_process_and_all_its_devices_is_read(devices):
    own = RandomStates()
    own.on_train_epoch_end(process(0), CPU)
    expected = drawn()
    former = {name: states[0] for name, states in own.state_dict().items()} | {"cuda": [7, 8]}
    resumed = RandomStates()
    resumed.load_state_dict(former)
    resumed.on_train_batch_start(process(0), SECOND, None, 0)
    assert drawn() == expected
    assert devices[SECOND.device] == 7
