"""Claims about how a report tells what a run was made of."""

import pytest
from commands import REPOSITORY
from omegaconf import OmegaConf

from distill.verbs.run.workspace import plain
from distill.verbs.stages.recipe import loss_words, node_words, teacher_words


def option(group, name, **changes):
    own = OmegaConf.load(REPOSITORY / "conf" / group / f"{name}.yaml")
    return plain(OmegaConf.create({"seed": 0, "own": own}))["own"] | changes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kd", "ce 0.1 + kd 0.9 (temperature 4)"),
        ("ce", "ce 1"),
        ("mlkd", "ce 0.1 + mlkd 0.9 (temperatures [2, 3, 4, 5, 6])"),
    ],
)
def test_a_loss_is_a_sum(name, said):
    assert loss_words(option("loss", name)) == said


def test_a_student_is_its_class_and_settings():
    assert node_words(option("student", "tiny_cnn")) == "PlainCNN (widths [16, 24, 28])"


def test_a_teacher_is_its_network_and_where_its_weights_are_from():
    own = option("teacher", "small_cnn", checkpoint="/far/away/best.pt", mean=[0.5])
    said = teacher_words(own)
    assert said.startswith("PlainCNN (widths [")
    assert said.endswith("checkpoint best.pt, mean [0.5]")


def test_a_file_is_told_by_its_name_with_what_it_is_given():
    own = {"path": "/far/away/model.onnx", "mean": [0.5], "std": [0.25]}
    said = teacher_words(option("teacher", "onnx") | own)
    assert said == "onnx_teacher (path model.onnx, mean [0.5], std [0.25])"


def test_an_ensemble_names_its_members():
    member = option("teacher", "small_cnn")
    said = teacher_words({"members": {"a": member, "b": {"_target_": "mine.Net"}}})
    assert said.startswith("ensemble of a: PlainCNN (")
    assert said.endswith("; b: Net")


@pytest.mark.parametrize(
    ("is_numeric", "kind"), [(False, "RandomForestClassifier"), (True, "RandomForestRegressor")]
)
def test_of_two_estimators_the_one_in_use_is_told(is_numeric, kind):
    said = teacher_words(option("teacher", "sklearn"), is_numeric=is_numeric)
    assert kind in said
    assert said.count("RandomForest") == 1
