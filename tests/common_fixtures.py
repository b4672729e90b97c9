"""Fixtures: real digits, a small trained run, and packages that a machine may lack."""

import copy
import fcntl
import functools
import gc
import json
import logging
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SHORT, Ran, nothing_stays, run_cli
from devices import artefacts as artefacts
from devices import inputs as inputs
from devices import written as written
from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hypothesis import settings
from monitored import world as world
from omegaconf import DictConfig, ListConfig, OmegaConf
from postgres import engine as engine
from postgres import log_url as log_url
from postgres import opened as opened
from postgres import postgres_server as postgres_server
from postgres import postgres_url as postgres_url
from prediction_logs import writing as writing
from registered import home as home
from registered import promote as promote
from registered import register as register
from served import echo as echo
from served import people_table as people_table
from served import pets as pets
from sshd import device as device
from torch.onnx._internal.exporter._registration import ONNXRegistry

from distill.cli import main
from distill.deployment.quantize.recipes import Source
from distill.production.registry.store import Store
from distill.training.data.images import ImageData
from distill.training.data.sources import digits

settings.register_profile("untimed", deadline=None)  # time never decides a test
settings.load_profile("untimed")

# Products of eight bits by eight overflow there, and answers depend on how a batch is cut.
saturates = platform.machine() == "x86_64" and "vnni" not in Path("/proc/cpuinfo").read_text()
exact_int8 = pytest.mark.skipif(
    saturates, reason="needs VNNI, which this machine's processor lacks: int8 saturates without it"
)


# Who asks for one of these runs a verb, exports a network, keeps a registry or measures a device.
TAKE_THEIR_TIME = {
    "artefacts", "cli", "device", "engine", "exported", "files", "finished", "home", "log_url",
    "pets", "recipe", "world", "wrapped",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Call slow what uses fixtures that are; begin with the files in which most tests are.

    No process is left with one of these in the end.
    """
    num_slow = Counter()
    for item in items:
        if TAKE_THEIR_TIME & {*getattr(item, "fixturenames", ())}:
            item.add_marker("slow")
        num_slow[item.path] += 1 if item.get_closest_marker("slow") else -1
    items.sort(key=lambda item: num_slow[item.path] < 0)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what is imported by now, and come less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    """Leave the package's logger as it was: a verb's own handler writes to what is then closed."""
    logger = logging.getLogger("distill")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, logger.level = before


@pytest.fixture(autouse=True, scope="session")
def what_others_do_again() -> Iterator[None]:
    """Do once, for all tests of a process, what takes half of an export, and of a composition.

    Torch lists the operators that it can translate anew for every export. Hydra composes everything
    to read one word, `hydra.mode`, which no configuration of ours says; reads every file anew; and
    merges, for every file, the choices made so far, for lists of defaults that name them.
    """
    table = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    choices_of, load = defaults_list._create_interpolation_map, OmegaConf.load
    known: dict[str, DictConfig | ListConfig] = {}

    def load_once(file: Any) -> DictConfig | ListConfig:
        if not hasattr(file, "read"):
            return load(file)
        text = file.read()
        if text not in known:
            file.seek(0)
            known[text] = load(file)
        return copy.deepcopy(known[text])

    def choices_if_named(overrides: Any, defaults: list, self_added: bool) -> Any:
        named = any(not one.is_self() and one.is_interpolation() for one in defaults)
        return choices_of(overrides, defaults, self_added) if named else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", table)
        patch.setattr(Hydra, "get_mode", lambda *args, **kwargs: None)
        patch.setattr(OmegaConf, "load", staticmethod(load_once))
        patch.setattr(defaults_list, "_create_interpolation_map", choices_if_named)
        yield


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Callable[..., Ran]:
    """Call the command line in this process, in an empty folder: quick, for many small cases."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as exit_info, nothing_stays(tmp_path):
            main(list(arguments))
        out, err = capfd.readouterr()
        assert isinstance(exit_info.value.code, int)
        return Ran(code=exit_info.value.code, stdout=out, stderr=err)

    return call


@pytest.fixture(scope="session")
def data() -> ImageData:
    """The real digits."""
    return digits(test_fraction=0.4, validation_fraction=0.15, seed=0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A whole pipeline, trained for three epochs: its run folder and what it printed.

    The process that asks first makes it, all look at it: whoever changes it, copies it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, printed = shared / "pipeline", shared / "pipeline.json"
    with (shared / "pipeline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            folder.mkdir(exist_ok=True)  # another process may have failed in it
            ran = run_cli("pipeline", "run_dir=run", *SHORT, cwd=folder)
            assert ran.code in (0, 3, 4), ran.stderr
            printed.write_text(json.dumps(asdict(ran)))
    return folder / "run", Ran(**json.loads(printed.read_text()))


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: it takes a second."""
    folder = tmp_path_factory.mktemp("mlflow")
    Store(f"sqlite:///{folder}/mlflow.db", "none", folder).aliases()
    return folder / "mlflow.db"


def make_file(recipe, source: Path, target: Path, images: np.ndarray) -> None:
    """Make a recipe's file of a float32 file."""
    with tempfile.TemporaryDirectory() as folder:
        recipe.make(Source(source, images, Path(folder)), target)


@pytest.fixture
def require() -> Callable[[str, str], str]:
    """Find a program, or skip; where `DISTILL_REQUIRE` names the need, fail instead."""

    def find(need: str, program: str) -> str:
        path = shutil.which(program)
        if path is None:
            message = f"needs `{program}` ({need}), which this machine lacks"
            if need in os.environ.get("DISTILL_REQUIRE", "").split(","):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def batch(rng):
    """Eight examples of six classes, [B, C], [B, C] and [B]."""
    student, teacher = rng.normal(size=(2, 8, 6)) * 3
    return torch.tensor(student), torch.tensor(teacher), torch.tensor(rng.integers(0, 6, 8))
