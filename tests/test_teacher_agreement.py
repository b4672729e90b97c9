"""Claims about what is said of a teacher that is in another order, or put off by the views."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from distill.errors import UserError
from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.splits import Split
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.classes import match_classes
from distill.verbs.learning.teacher_agreement import (
    agreement_with_labels,
    ask_as_they_are,
    check_order,
)
from distill.verbs.run.workspace import Workspace

CLASSES = ("ant", "bee", "cow", "dog")
SHIFT = {"_target_": "distill.training.views.ShiftFlip", "padding": 1, "flip": False, "seed": 0}
UNCHANGED = {"_target_": "distill.training.views.Unchanged"}
ELSEWHERE, TRAINED = {"path": "x.onnx"}, {"network": {}, "checkpoint": None}


def data(rng):
    labels = np.repeat(np.arange(4), 300)
    split = Split(
        inputs=np.zeros((1200, 2, 2, 1), np.uint8), labels=labels, indices=np.arange(1200) * 3
    )
    task = classification(CLASSES)
    return ImageData(name="a", task=task, train=split, validation=split, test=split)


class Known(Teacher):
    """Says of the samples what it is told to say."""

    def __init__(self, answers, classes=CLASSES):
        super().__init__()
        self.answers, self.classes = answers, classes

    def forward(self, image, index):
        """Answer a batch."""
        return TeacherOutput(logits=torch.eye(4)[self.answers[index.numpy() // 3]])


def workspace(own, views=SHIFT, teacher=ELSEWHERE, mixing=None):
    cfg = OmegaConf.create({"teacher": teacher, "views": views, "mixing": mixing})
    return Workspace(cfg, "", Console(quiet=True)).changed(cfg, own)


def stored(answers):
    return SimpleNamespace(logits=lambda view, index: np.eye(4)[answers[index // 3]])


def mistaken(labels, share, rng):
    """Be wrong on a share of the samples."""
    wrong = rng.random(len(labels)) < share
    return np.where(wrong, (labels + 1) % 4, labels)


ORDER = np.array([2, 0, 3, 1])  # of the answer i, the class is ORDER[i]


@pytest.mark.parametrize("share", [0, 0.2])
def test_a_teacher_in_another_order_is_refused_with_the_order_it_has(share, rng):
    own = data(rng)
    answers = np.argsort(ORDER)[mistaken(own.train.labels, share, rng)]
    with pytest.raises(UserError, match=r"Set `teacher.classes=\[cow,ant,dog,bee\]`"):
        ask_as_they_are(workspace(own), Known(answers))
    right = match_classes(Known(answers, ("cow", "ant", "dog", "bee")), CLASSES, drop_classes=False)
    found = ask_as_they_are(workspace(own), right)
    assert found.right.mean() == pytest.approx(1 - share, abs=0.05)
    assert len(found.rows) == 1000


def test_the_order_is_told_in_the_names_that_were_given(rng):
    own = data(rng)
    answers = np.argsort(ORDER)[own.train.labels]
    named = match_classes(Known(answers, ("dog", "ant", "bee", "cow")), CLASSES, drop_classes=False)
    with pytest.raises(UserError, match=r"Set `teacher.classes=\[cow,ant,dog,bee\]`"):
        ask_as_they_are(workspace(own), named)


@pytest.mark.parametrize("answers", ["constant", "random", "two swapped", "half of them"])
def test_no_order_is_proposed_where_none_is_far_better(answers, rng):
    labels = data(rng).train.labels
    given = {
        "constant": np.zeros_like(labels),
        "random": rng.integers(0, 4, len(labels)),
        "two swapped": np.array([1, 0, 2, 3])[labels],  # half right, above chance
        "half of them": np.argsort(ORDER)[np.where(labels < 2, labels, 0)],
    }
    check_order(given[answers], labels, CLASSES, CLASSES)


@pytest.mark.parametrize("teacher", [TRAINED, {"members": {}}])
def test_only_who_can_be_named_is_refused(teacher, rng):
    own = data(rng)
    found = ask_as_they_are(
        workspace(own, teacher=teacher), Known(np.argsort(ORDER)[own.train.labels])
    )
    assert found.right.mean() == 0


@pytest.mark.parametrize(
    ("share", "views", "teacher", "mixing", "warned"),
    [
        (0.3, SHIFT, ELSEWHERE, None, True),
        (0.3, SHIFT, TRAINED, None, False),  # it has learnt these views
        (0.3, SHIFT, ELSEWHERE, {"a": 1}, False),  # mixed samples have no label of their own
        (0.03, SHIFT, ELSEWHERE, None, False),
        (0, SHIFT, ELSEWHERE, None, False),
    ],
)
def test_a_teacher_that_views_put_off_is_warned_of(
    share, views, teacher, mixing, warned, rng, caplog
):
    own = data(rng)
    space = workspace(own, views, teacher, mixing)
    asked = ask_as_they_are(space, Known(own.train.labels))
    augmented = mistaken(own.train.labels, share, rng)
    with caplog.at_level(logging.INFO, "distill"):
        agreement = agreement_with_labels(space, stored(augmented), asked)
    assert agreement == np.mean(augmented == own.train.labels)
    assert f"{100 * agreement:.1f} % of the training samples" in caplog.text
    assert "and of 100.0 % of 1000 of them as they are" in caplog.text
    assert ("put the teacher off" in caplog.text) == warned


def test_samples_that_are_shown_as_they_are_have_one_figure(rng, caplog):
    own = data(rng)
    space = workspace(own, UNCHANGED)
    asked = ask_as_they_are(space, Known(own.train.labels))
    with caplog.at_level(logging.INFO, "distill"):
        assert agreement_with_labels(space, stored(own.train.labels), asked) == 1
    assert "as they are" not in caplog.text
