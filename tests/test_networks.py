"""Claims about weights that are read back, and about those that do not fit."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from distill.errors import UserError
from distill.training.models import ImageClassifier, PlainCNN
from distill.verbs.learning.networks import (
    _load_state,
    build_teacher_network,
    load_network,
    start_path,
)


def network(num_classes, widths=(4, 8)):
    return ImageClassifier(PlainCNN(num_classes, 1, widths=widths), [0.3], [0.4])


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize(
    ("num_classes", "advice"),
    [
        (4, r"`teacher\.classes=\[\.\.\.\]`, and set `teacher\.drop_classes=true`"),
        (2, "Name weights of another teacher"),
    ],
)
def test_weights_for_another_number_of_classes_are_named_as_such(
    num_classes, advice, inner, tmp_path
):
    other = network(num_classes)
    content = (other.network if inner else other).state_dict()
    with pytest.raises(
        UserError, match=rf"3 classes \(a, b, c\) but .* for {num_classes}\. .*{advice}"
    ):
        _load_state(network(3), content, tmp_path / "x.pt", "teacher", ("a", "b", "c"))


@pytest.mark.parametrize("other", [network(4, (4, 6)), torch.nn.Linear(2, 4)])
def test_weights_of_another_network_are_not_taken_for_those_of_other_classes(other, tmp_path):
    with pytest.raises(UserError, match="but they do not fit"):
        _load_state(network(3), other.state_dict(), tmp_path / "x.pt", "teacher", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("role", "advice"),
    [
        ("student", r"\(`student=\.\.\.`\)\."),  # it has no `classes`
        ("teacher", r"\(`teacher=\.\.\.`\), or its classes \(`teacher\.classes=\[\.\.\.\]`\)\."),
    ],
)
def test_weights_that_do_not_fit_are_answered_with_settings_that_there_are(role, advice, tmp_path):
    other = network(4, (4, 6)).state_dict()
    with pytest.raises(UserError, match=f"Name the network they were made with {advice}$"):
        _load_state(network(3), other, tmp_path / "x.pt", role, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("role", "setting"), [("student", "start_from"), ("teacher", "teacher_training.start_from")]
)
def test_weights_to_start_from_that_are_not_there_are_named_by_their_setting(role, setting):
    cfg = OmegaConf.create({"start_from": "x.pt", "teacher_training": {"start_from": "x.pt"}})
    with pytest.raises(UserError, match=f"`{setting}=x.pt` but there are none"):
        start_path(cfg, role)


def teacher(mean, std):
    factory = {"_target_": f"{PlainCNN.__module__}.PlainCNN", "_partial_": True, "widths": [4, 8]}
    return OmegaConf.create({"network": factory, "mean": mean, "std": std})


def test_one_number_normalises_every_channel_of_a_teacher(data, tmp_path):
    workspace = SimpleNamespace(data=data, images=data)
    built = build_teacher_network(workspace, teacher(0.0, 0.25), 10)  # 0 is a mean as any other
    assert (built.mean.tolist(), built.std.tolist()) == ([0.0], [63.75])
    torch.save(network(10).state_dict(), tmp_path / "x.pt")
    loaded = load_network(workspace, teacher(0.5, 0.25), tmp_path / "x.pt")
    assert (loaded.mean.tolist(), loaded.std.tolist()) == ([127.5], [63.75])


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5, 0.5], [0.2, 0.2]), (0.5, None), (0.5, 0), ("a", 0.2), ([], [0.2])]
)
def test_a_teachers_mean_and_std_that_do_not_fit_the_channels_are_one_message(data, mean, std):
    workspace = SimpleNamespace(data=data, images=data)
    with pytest.raises(UserError, match=r"`teacher\.mean` and `teacher\.std` .* of 1 channels"):
        build_teacher_network(workspace, teacher(mean, std), 10)
