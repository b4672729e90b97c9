"""Claims about the user's own code: an edit of it is a change, wherever it stands."""

import sys

import pytest

from distill.files import sha256
from distill.verbs.run.own_code import own_code, with_own_code


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
