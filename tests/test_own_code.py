"""Claims about the user's own code: an edit of it is a change, wherever it stands."""

import sys

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from distill.files import sha256, sha256_json, write_json, write_text
from distill.verbs.learning.members import load_teacher
from distill.verbs.run.own_code import own_code, sha256_of, with_own_code
from distill.verbs.run.workspace import Workspace
from distill.verbs.stages.refusal import _is_trained


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which commands start: a module, one that it imports, and a package."""
    (tmp_path / "own_nets.py").write_text("import numpy\nfrom own_layers import Layer\n")
    (tmp_path / "own_layers.py").write_text("import json, torch.nn\nclass Layer: ...\n")
    package = tmp_path / "own_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("from .deep import inner\nfrom . import beside\n")
    (package / "beside.py").write_text("from .... import beyond\n")
    (package / "deep" / "inner.py").write_text("def broken(:\n")  # a folder without __init__
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_a_target_names_and_imports_is_known_by_its_hash(folder):
    found = own_code({"student": {"_target_": "own_nets.Net", "width": 3}})
    files = ("own_layers", "own_nets")
    assert found == {name: sha256(folder / f"{name}.py") for name in files}
    assert not set(files) & set(sys.modules)  # nothing of it has run


def test_a_package_is_followed_and_what_is_broken_is_hashed_all_the_same(folder):
    found = own_code([{"a": ({"_target_": "own_package.losses.Loss"},)}])
    expected = ["own_package", "own_package.beside", "own_package.deep.inner", "own_package.losses"]
    assert list(found) == expected
    before = found["own_package.deep.inner"]
    (folder / "own_package/deep/inner.py").write_text("done = True\n")
    assert own_code({"_target_": "own_package.losses.Loss"})["own_package.deep.inner"] != before


def test_a_class_that_is_named_to_be_looked_up_counts(folder):
    values = {"dataset": {"_target_": "hydra.utils.get_class", "path": "own_layers.Layer"}}
    assert list(own_code(values)) == ["own_layers"]
    assert own_code({"path": "own_layers.Layer"}) == {}


@pytest.mark.parametrize(
    "target",
    [
        "distill.training.losses.terms.LossTerm",
        "torch.optim.SGD",
        "json.loads",
        "builtins.dict",
        "__main__.Net",
        "nowhere.Net",
        "",
        "..",
    ],
)
def test_what_is_installed_or_is_not_there_is_nobodys_own(folder, target):
    values = {"_target_": target, "lr": 0.1}
    assert own_code(values) == {}
    assert with_own_code(values) == values  # so that what was made before still counts


RULE = """from sklearn.dummy import DummyClassifier
class Rule(DummyClassifier):
    def fit(self, X, y):
        self.constant = {digit}
        return super().fit(X, y)
"""
TEACHER = {
    "_target_": "distill.training.teachers.sources.sklearn_teacher",
    "_partial_": True,
    "estimator": {"_target_": "own_rule.Rule", "strategy": "constant", "constant": 0},
    "trusted_types": ["own_rule.Rule"],
}


def test_an_estimator_of_ones_own_is_fitted_anew_after_an_edit_and_only_then(
    folder, tmp_path, data, monkeypatch
):
    cfg = OmegaConf.create({"teacher": TEACHER})
    workspace = Workspace(cfg, tmp_path / "run", Console(quiet=True)).changed(cfg, data)
    answers, times = [], []
    for digit in ("3", "3", "3 + 4"):
        (folder / "own_rule.py").write_text(RULE.format(digit=digit))
        monkeypatch.delitem(sys.modules, "own_rule", raising=False)
        teacher = load_teacher(workspace)
        answers.append(teacher.estimator.predict(data.test.inputs[:1].reshape(1, -1)).item())
        times.append(len(list((tmp_path / "run").rglob("*.skops"))))
    assert (answers, times) == ([3, 3, 7], [1, 1, 2])


def test_an_edited_network_of_ones_own_is_not_the_one_that_was_trained(folder, tmp_path):
    own = {"_target_": "own_nets.Net", "width": 3}
    cfg, weights = OmegaConf.create({"student": own}), tmp_path / "run/train/student/best.pt"
    write_text(weights, "weights")
    workspace = Workspace(cfg, tmp_path / "run", Console(quiet=True))
    result = tmp_path / "run/train/student.json"
    for known in ({}, {"network_sha256": sha256_json(own)}):  # of before code was kept
        write_json(result, known)
        assert _is_trained(workspace)
    write_json(result, {"network_sha256": sha256_of(own)})
    assert _is_trained(workspace)
    (folder / "own_layers.py").write_text("class Layer: width = 1000\n")
    assert not _is_trained(workspace)
    assert sha256_of({"lr": 0.1}) == sha256_json({"lr": 0.1})  # what is nobody's own, as before
