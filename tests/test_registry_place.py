import shutil

import pytest
from registry_runs import ARTEFACT, place

from distill.errors import UsageError, UserError
from distill.files import sha256
from distill.production.registry.package import collect
from distill.production.registry.place import fetch
from distill.production.registry.registry import open_registry


def test_a_version_holds_what_its_run_left(home, register):
    entry = register()
    package = fetch(home, entry.version)
    for name, expected in package.files.items():
        assert sha256(package.root / name) == expected
    assert {"verdict.json", "reference.json", "train/student/best.pt", "config.yaml"} <= {
        *package.files
    }
    assert f"export/{ARTEFACT}" in package.files
    assert entry.artefact_sha256 == package.files[f"export/{ARTEFACT}"]
    assert (entry.number, entry.version, entry.action) == (1, 1, "register")


def test_the_same_content_is_the_same_version(home, register, tmp_path):
    first = register()
    shutil.copytree(tmp_path / "run0", tmp_path / "moved")
    for run_dir in ("run0", "moved"):
        with open_registry(home) as registry:
            assert registry.register(collect(tmp_path / run_dir)) == first
    assert register(seed=1).version == 2
    assert len(home.read().entries) == 2


def test_a_champion_is_fetched_once_and_then_without_a_server(home, register, promote):
    register()
    promote()
    (home.folder / "mlflow.db").unlink()
    shutil.rmtree(home.folder / "artefacts")
    assert home.champion().version == 1
    assert fetch(home, 1).artefact_path.is_file()


def test_what_was_fetched_and_then_damaged_is_fetched_again(home, register, caplog):
    register()
    damaged = fetch(home, 1).root / "reference.json"
    expected = damaged.read_bytes()
    damaged.write_text("{}")
    assert fetch(home, 1).root == damaged.parent
    assert damaged.read_bytes() == expected


def test_a_missing_model_is_named_with_its_neighbours(home, register):
    with pytest.raises(UserError, match="Run `promote register"):
        home.read()
    register()
    with pytest.raises(UserError, match="Did you mean `pets`"):
        place(home.folder, model="pest").read()
    with pytest.raises(UserError, match="no version was promoted yet"):
        home.champion()
    with pytest.raises(UsageError, match="letters, digits"):
        place(home.folder, model="../x")
