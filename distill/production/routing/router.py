"""Asks champion or challenger, as the experiment has it, and the champion wherever that fails.

Whatever the challenger does, a request is answered: in its own arm it has half of the time that is
left, then the champion has the rest; as a shadow it is asked once the answer is given. Knows
nothing of statistics, nor of when the experiment moves on.
"""

import asyncio
import dataclasses
import time
from typing import Any

from numpy.typing import NDArray

from distill.production.experiment.rollout import Stage
from distill.production.prediction_log.records import Outcome
from distill.production.routing.assignment import Arm, assign, is_held_out, position
from distill.production.routing.challenger import Challenger, ChallengerError
from distill.production.routing.trial import Trial, standing
from distill.production.serving.exchange import Answer, InferenceRequest, SingleRouter
from distill.production.serving.recording import Recorder
from distill.production.serving.refusals import RefusedError

TOLD_S = 3_600.0  # for which the end of an experiment is told
BURST = 10  # shadows that may come at once, where only so many a second may
OUTCOMES: dict[str, Outcome] = {"timeout": "timeout", "busy": "rejected"}  # others: error


class TrialRouter:
    """The champion alone, until there is a trial.

    Args:
        recorder: of answers that nobody is given.
        holdout: share of the units that are in no experiment.
    """

    def __init__(self, recorder: Recorder, holdout: float = 0.0) -> None:
        self.trial: Trial | None = None
        self.problem: str | None = None  # why there is no trial, or none that moves
        self._past: tuple[float, dict[str, Any]] | None = None  # when a trial ended, and how
        self._single, self._recorder, self._holdout = SingleRouter(), recorder, holdout
        self._shadows: set[asyncio.Task[None]] = set()
        self._next_shadow = 0.0  # when one would be due if they came evenly

    async def route(self, request: InferenceRequest) -> Answer:
        """Get an answer by the request's deadline.

        Raises:
            RefusedError: the champion has none.
        """
        trial = self.trial
        if trial is None or trial.challenger is None or request.is_pinned:
            return await self._single.route(request)
        if request.edition.artefact_sha256 != trial.setting.champion.artefact_sha256:
            return await self._single.route(request)
        stage, arm = trial.state.stage, self._arm(trial, request.unit or request.ids[0])
        if arm is Arm.CHALLENGER:
            return await self._challenged(trial, trial.challenger, request)
        if arm is not Arm.CONTROL:
            return await self._single.route(request)
        try:
            answer = await self._single.route(request)
        except RefusedError as refusal:
            if stage is not Stage.SHADOW:  # of which only what both are asked is compared
                refusal.part_of = trial.setting.experiment, stage
            raise
        if not self._begin_shadow(trial, request) and stage is Stage.SHADOW:
            return answer  # only what both are asked is compared
        return dataclasses.replace(answer, experiment=trial.setting.experiment, stage=stage)

    def _arm(self, trial: Trial, unit: str) -> Arm:
        state = trial.state
        if trial.ban is not None:
            return Arm.REST
        if state.weight == 1:
            return Arm.CHALLENGER
        if is_held_out(unit, self._holdout):
            return Arm.HOLDOUT
        if state.stage is Stage.SHADOW:
            return Arm.CONTROL
        if not state.weight:
            return Arm.REST
        return assign(
            position(trial.setting.experiment, unit), state.weight, trial.setting.policy.share
        )

    async def _challenged(
        self, trial: Trial, challenger: Challenger, request: InferenceRequest
    ) -> Answer:
        by, started = trial.by(request, "challenger"), time.monotonic()
        seconds = min((request.deadline - started) / 2, trial.deadline_ms / 1000)
        try:
            outputs = await _asked(challenger, request, seconds)
        except ChallengerError as error:
            trial.counted(error)
            await self._missed(request, by, error, started)
            answer = await self._single.route(request)
            return dataclasses.replace(
                answer, role="fallback", experiment=by.experiment, stage=by.stage
            )
        trial.counted(None)
        return dataclasses.replace(by, outputs=outputs)

    def _begin_shadow(self, trial: Trial, request: InferenceRequest) -> bool:
        """Ask a shadow, unless it has enough to do; half of what it may be asked is for others."""
        challenger = trial.challenger
        if challenger is None:
            return False
        if len(self._shadows) >= max(challenger.limits.max_in_flight // 2, 1):
            return False
        if not self._is_paced(challenger.limits.max_shadows_per_second):
            return False
        task = asyncio.create_task(self._shadow(trial, challenger, request))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)
        return True

    def _is_paced(self, rate: float | None) -> bool:
        """Tell whether another shadow may come now (the generic cell rate algorithm, ITU I.371)."""
        now = time.monotonic()
        if rate is None:
            return True
        if now < self._next_shadow - BURST / rate:
            return False
        self._next_shadow = max(self._next_shadow, now) + 1 / rate
        return True

    async def _shadow(
        self, trial: Trial, challenger: Challenger, request: InferenceRequest
    ) -> None:
        by, started = trial.by(request, "shadow"), time.monotonic()
        try:
            outputs = await _asked(challenger, request, trial.deadline_ms / 1000)
        except ChallengerError as error:
            trial.counted(error)
            await self._missed(request, by, error, started)
        else:
            trial.counted(None)
            latency_ms = _since_ms(started)
            given = dataclasses.replace(by, outputs=outputs)
            await self._recorder.record(request, given, latency_ms)

    async def _missed(
        self, request: InferenceRequest, by: Answer, error: ChallengerError, started: float
    ) -> None:
        failure = OUTCOMES.get(error.kind, "error"), str(error)
        await self._recorder.record(request, by, _since_ms(started), failure=failure)

    def end(self, champion_sha256: str) -> None:
        """Let go of a trial; how it ended is told for a while.

        Args:
            champion_sha256: of the file that answers from now on.
        """
        trial, self.trial = self.trial, None
        if trial is not None and trial.state.stage.is_over:
            told = standing(trial)
            if champion_sha256 == trial.setting.challenger.artefact_sha256:
                told |= {"standing": "champion", "next": None, "is_champion": True}
            self._past = time.monotonic(), told | {"is_over": True, "is_ready": False}

    def status(self) -> dict[str, Any] | None:
        """Say which experiment is under way, or why none is, or how the last one ended."""
        if self.trial is not None:
            return standing(self.trial) | {"problem": self.problem}
        if self.problem is not None:
            return {"stage": "none", "is_paused": False, "is_over": True, "why": self.problem}
        if self._past is None or time.monotonic() - self._past[0] > TOLD_S:
            return None
        return self._past[1] | {"problem": None}

    async def close(self) -> None:
        """Let the shadows end."""
        await asyncio.gather(*self._shadows, return_exceptions=True)


async def _asked(
    challenger: Challenger, request: InferenceRequest, seconds: float
) -> dict[str, NDArray[Any]]:
    """Ask the challenger, and hold its answer against what the champion would give."""
    found = await challenger.ask(request.feeds, seconds)
    outputs: dict[str, NDArray[Any]] = {}
    for spec in request.edition.signature.outputs:
        values = found.get(spec.name)
        if values is None or not spec.fits(values.shape):
            raise ChallengerError("error", f"its `{spec.name}` is not of the champion's shape")
        outputs[spec.name] = values
    if request.edition.signature.has_rows:
        lengths = {len(values) for values in outputs.values()}
        if lengths != {request.num_rows}:
            raise ChallengerError("error", f"{lengths} answers to {request.num_rows} rows")
    return outputs


def _since_ms(started: float) -> float:
    return (time.monotonic() - started) * 1000
