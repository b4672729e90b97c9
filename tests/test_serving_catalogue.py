"""A new version that did not load is tried again, though nothing says that it changed."""

import asyncio
import errno
import itertools
import os
import threading
from types import SimpleNamespace

import pytest
from registry_runs import ARTEFACT, Run, make_run

from distill.files import sha256
from distill.production.serving import catalogue as module
from distill.production.serving.catalogue import Catalogue
from distill.production.serving.editions import Artefact, Loading

PATIENCE_S = 60
LOOK_S = 0.25  # by the clock of the test, which goes on with every look at it


class Failing:
    """A source that names another artefact, cannot be read some times, and changes no more."""

    def __init__(self, path, clock):
        self.path, self.clock, self.num_failures, self.tried = path, clock, 0, []

    def becomes(self, path, num_failures):
        self.path, self.num_failures, self.tried = path, num_failures, []

    def mark(self):
        return "the same"

    def read(self):
        self.tried.append(self.clock.now)
        if len(self.tried) <= self.num_failures:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return Artefact(path=self.path, model="pets", sha256=sha256(self.path))


@pytest.fixture
def clock(monkeypatch):
    """A clock of the test's own, so that no pause takes any time."""
    clock = SimpleNamespace(now=0.0)

    def monotonic():
        clock.now += LOOK_S
        return clock.now

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic), raising=False)
    monkeypatch.setattr(module, "POLL_S", 0)
    return clock


def tried(pets, tmp_path, clock, num_failures):
    """Be told of another artefact, and follow the source until it answers; when it was read."""
    source = Failing(pets / ARTEFACT, clock)

    async def main():
        catalogue = Catalogue.open(source, Loading())
        before = catalogue.current
        source.becomes(make_run(tmp_path / "run", Run(seed=5)) / "export" / ARTEFACT, num_failures)
        assert await catalogue.reload() is False
        assert "Too many open files" in str(catalogue.problem)
        watching = asyncio.create_task(catalogue.watch())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while catalogue.current is before:
                    await asyncio.sleep(0)
        finally:
            watching.cancel()
            catalogue.close()
        assert catalogue.problem is None

    asyncio.run(main())
    return source.tried


def test_what_failed_for_a_moment_answers_though_its_source_changes_no_more(pets, tmp_path, clock):
    assert len(tried(pets, tmp_path, clock, 1)) == 2


def test_the_pause_grows_up_to_a_minute(pets, tmp_path, clock):
    times = tried(pets, tmp_path, clock, 9)
    paused = [after - before for before, after in itertools.pairwise(times)]
    assert paused == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], abs=2 * LOOK_S)


def test_one_that_was_rejected_while_it_was_being_loaded_does_not_answer(
    pets, tmp_path, monkeypatch
):
    source = Failing(pets / ARTEFACT, SimpleNamespace(now=0.0))
    begun, rejected = threading.Event(), threading.Event()

    def load(artefact, loading):
        edition = module_load(artefact, loading)
        begun.set()
        assert rejected.wait(PATIENCE_S)
        return edition

    async def main():
        catalogue = Catalogue.open(source, Loading())
        before = catalogue.current
        source.becomes(make_run(tmp_path / "run", Run(seed=5)) / "export" / ARTEFACT, 0)
        monkeypatch.setattr(module, "load", load)
        loading = asyncio.create_task(catalogue.reload())
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        own, other = (None, before.artefact_sha256), (None, sha256(source.path))
        await catalogue.bring_back(own, other, source.read)
        rejected.set()
        assert await loading is False
        assert catalogue.warm == [catalogue.current] == [before]
        assert catalogue.release()
        assert await catalogue.reload()
        assert catalogue.current.artefact_sha256 == other[1]
        catalogue.close()

    module_load = module.load
    asyncio.run(main())


def test_one_that_is_named_no_more_once_it_is_loaded_does_not_answer(pets, tmp_path, monkeypatch):
    old, new = pets / ARTEFACT, make_run(tmp_path / "run", Run(seed=5)) / "export" / ARTEFACT
    source, answered, loaded = Failing(old, SimpleNamespace(now=0.0)), [], []

    def load(artefact, loading):
        edition = module_load(artefact, loading)
        loaded.append(edition)
        source.becomes(old, 0)  # a rollback, while the new one was being loaded
        return edition

    async def main():
        catalogue = Catalogue.open(source, Loading())
        catalogue.on_change = answered.append
        source.becomes(new, 0)
        source.mark = lambda: str(source.path)
        monkeypatch.setattr(module, "load", load)
        assert await catalogue.reload() is False
        assert catalogue.current.artefact_sha256 == sha256(old)
        assert answered == []
        (unused,) = loaded
        assert await asyncio.to_thread(unused.batcher.join, PATIENCE_S)
        monkeypatch.setattr(module, "load", module_load)
        source.becomes(new, 0)
        assert await catalogue.reload()
        assert catalogue.problem is None
        catalogue.close()

    module_load = module.load
    asyncio.run(main())
