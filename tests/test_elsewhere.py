"""Claims about teachers from elsewhere, which may know the test set."""

import numpy as np
import onnx
import pytest
import torch
from omegaconf import OmegaConf
from onnx import helper
from PIL import Image
from rich.console import Console

from distill.contract import CLASSES_KEY
from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.sources import image_folder
from distill.training.data.splits import Split
from distill.verbs.learning.elsewhere import warnings_about_test_set
from distill.verbs.run.workspace import Workspace


def workspace(teacher, *, test_is_drawn=True):
    split = Split(inputs=np.zeros((4, 2, 2, 1)), labels=np.zeros(4), indices=np.arange(4))
    parts = dict.fromkeys(("train", "validation", "test"), split)
    data = ImageData(
        name="a", task=classification(("a", "b")), test_is_drawn=test_is_drawn, **parts
    )
    cfg = OmegaConf.create({"teacher": teacher})
    return Workspace(cfg, "", Console(quiet=True)).changed(cfg, data)


@pytest.fixture
def files(tmp_path):
    """Write weights and an ONNX file of a run, and the same from elsewhere."""
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "bare.pth")
    torch.save({"state_dict": {}, "classes": ["a", "b"]}, tmp_path / "ours.pt")
    model = helper.make_model(helper.make_graph([], "g", [], []))
    onnx.save(model, tmp_path / "bare.onnx")
    helper.set_model_props(model, {CLASSES_KEY: "[]"})
    onnx.save(model, tmp_path / "ours.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "key", "warned"),
    [
        ("bare.pth", "checkpoint", True),
        ("ours.pt", "checkpoint", False),
        ("bare.onnx", "path", True),
        ("ours.onnx", "path", False),
        ("answers.csv", "path", True),
    ],
)
def test_only_what_no_run_has_made_may_know_a_test_set_that_is_drawn(name, key, warned, files):
    path = str(files / name)
    for teacher in ({key: path}, {"members": {"first": {key: path}}}):
        found = warnings_about_test_set(workspace(teacher), None)
        assert len(found) == warned
        assert all(f"{path} was made elsewhere" in text for text in found)
        assert not warnings_about_test_set(workspace(teacher, test_is_drawn=False), None)
    assert not warnings_about_test_set(workspace({"network": {}, "checkpoint": None}), None)


def test_the_figures_are_told_where_they_are_known(files):
    space = workspace({"path": "answers.csv"})
    test = {"accuracy": {"estimate": 0.985}}
    training = {
        "soft_labels": {"agreement_as_they_are": 0.991},
        "teacher": {"test_at_best_epoch": test},
    }
    (said,) = warnings_about_test_set(space, training)
    assert "right on 99.1 % of training and on 98.5 % of test samples. Lay images out" in said
    training["teacher"]["test_at_best_epoch"] = None
    (said,) = warnings_about_test_set(space, training)
    assert "right on" not in said


@pytest.mark.parametrize("parts", [("train", "test"), ("",)])
def test_a_folder_of_its_own_is_no_drawn_test_set(parts, tmp_path):
    for part in parts:
        for name in "ab":
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(8):
                Image.new("L", (4, 4), number).save(folder / f"{number}.png")
    data = image_folder(
        root=str(tmp_path), image_size=[4, 4], test_fraction=0.25, validation_fraction=0.25, seed=0
    )
    assert data.test_is_drawn == (parts == ("",))
