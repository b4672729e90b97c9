"""A registry of made-up runs, and what is asked of it; fixtures for the tests of its parts."""

import shutil

import pytest
from registry_runs import ARTEFACT, Run, make_run, place

from distill.production.registry.package import collect
from distill.production.registry.promotion import Request, Rules
from distill.production.registry.registry import open_registry

RULES = Rules()


@pytest.fixture
def home(tmp_path, mlflow_database):
    folder = tmp_path / "registry"
    folder.mkdir()
    shutil.copy(mlflow_database, folder / "mlflow.db")
    return place(folder)


@pytest.fixture
def register(home, tmp_path):
    """Make a run and register it."""

    def call(**kind):
        name = f"run{len(list(tmp_path.glob('run*')))}"
        package = collect(make_run(tmp_path / name, Run(**kind)))
        with open_registry(home, new=True) as registry:
            return registry.register(package)

    return call


@pytest.fixture
def promote(home):
    def call(alias="champion", version=None, rules=RULES, **asked):
        with open_registry(home) as registry:
            return registry.promote(Request(alias=alias, version=version, **asked), rules)

    return call


def rollback(home, *arguments):
    with open_registry(home) as registry:
        return registry.rollback(*arguments)


def agree(home):
    """Whether MLflow says what the ledger says."""
    return home.store.aliases() == home.read().state.aliases


def artefact_in_store(home):
    (path,) = home.folder.glob(f"artefacts/*/artifacts/version/export/{ARTEFACT}")
    return path
