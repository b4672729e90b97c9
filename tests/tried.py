"""A service that tries a challenger: it, the experiment and their log, to be asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
import sqlalchemy as sa
from onnx import numpy_helper
from served import make_service, make_table

from distill.production.experiment.policy import Policy
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.moves import moves_of
from distill.production.prediction_log.reader import stream
from distill.production.prediction_log.records import Feedback, Prediction
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.routing.challenger import Limits
from distill.production.routing.conducting import Conducting
from distill.production.routing.conductor import Conductor
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.serving.catalogue import FileSource
from distill.production.serving.editions import artefact_at
from distill.production.serving.log import KeptLog
from distill.production.serving.service import Asker, Service
from distill.production.serving.signature import Checked

RIGHT, WRONG, NOTHING = (-0.02, 0.02), (0.01, -0.01), (np.nan, np.nan)
QUICK = Policy(steps=(0.2, 0.5), min_units=50, guardrail_margin=0.1, margin=0.03)
AT_ONCE = Policy(steps=(0.5,), starts_in_shadow=False, max_consecutive_failures=3)


def variant(folder: Path, weights: tuple[float, float]) -> Path:
    """Copy the model of a folder, with other weights: `RIGHT` answers 1 to all that is above 0."""
    model = onnx.load(folder / "model.onnx")
    for constant in model.graph.initializer:
        if constant.name == "weights":
            constant.CopyFrom(numpy_helper.from_array(np.array([weights], np.float32), "weights"))
    path = folder / f"challenger {weights[0]}.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The champion, which answers as `RIGHT` does."""
    return make_table(tmp_path_factory.mktemp("champion"))


@dataclass
class World:
    """A service, an experiment and their log."""

    service: Service
    conductor: Conductor
    log: KeptLog
    engine: sa.Engine
    asked: list[str] = field(default_factory=list)

    @property
    def trial(self):
        assert isinstance(self.service.router, TrialRouter)
        assert self.service.router.trial is not None
        return self.service.router.trial

    async def ask(self, unit: str | None = None, age: float = 30.0) -> int:
        """Ask for one row; the class that is answered."""
        feeds = {
            "age": np.array([[age]]),
            "member": np.array([[1.0]]),
            "city": np.array([["Bern"]], object),
            "since": np.array([[0]], np.int64),
        }
        asker = Asker(endpoint="infer", unit=unit, started=time.perf_counter())
        edition = self.service.catalogue.current
        ids, answer = await self.service.ask(edition, Checked(feeds=feeds, num_rows=1), asker)
        self.asked.append(ids[0])
        return int(answer.outputs["logits"].argmax())

    async def traffic(self, count: int, truth: int | None = None) -> None:
        """Ask for many units, say what was true, and look."""
        start = len(self.asked)
        for at in range(count):
            await self.ask(f"unit {start + at}")
        await asyncio.sleep(0)
        assert isinstance(self.service.router, TrialRouter)
        await self.service.router.close()
        await asyncio.to_thread(self.written)
        if truth is not None:
            for one in self.asked[start:]:
                self.log.feedback(Feedback(prediction=one, label=truth))
        await self.conductor.tick()

    def written(self) -> None:
        while self.log.writer.health.num_pending:
            time.sleep(0.005)

    def rows(self) -> list[Prediction]:
        self.written()
        return [one.prediction for one in stream(self.engine)]

    def moves(self) -> list[str]:
        return [move.state for move in moves_of(self.engine, self.trial.setting.experiment)]


def experiment(
    folder: Path,
    tmp_path: Path,
    weights: tuple[float, float],
    use: Callable[[World], Awaitable[None]],
    *,
    policy: Policy = QUICK,
    limits: Limits | None = None,
) -> None:
    async def main() -> None:
        engine = open_log(f"sqlite:///{tmp_path}/log.db")
        log = KeptLog(engine=engine, writer=LogWriter(engine, WriterOptions(flush_ms=5)))
        service = make_service(folder, log=log)
        router = service.router = TrialRouter(service.recorder)
        conductor = Conductor(
            router=router,
            mover=Mover(engine=engine),
            catalogue=service.catalogue,
            challengers=FileSource(artefact=artefact_at(variant(folder, weights))),
            policy=policy,
            conducting=Conducting(
                deadline_ms=20_000, slow_ms=20_000, limits=limits or Limits(hang_seconds=20)
            ),
        )
        try:
            await conductor.tick()
            await use(World(service, conductor, log, engine))
        finally:
            await conductor.close()
            await router.close()
            service.catalogue.close()
            log.close()

    asyncio.run(main())
