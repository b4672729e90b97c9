"""Asks champion or challenger, as the experiment has it, and the champion wherever that fails.

Whatever the challenger does, a request is answered: in its own arm it has half of the time that is
left, then the champion has the rest; as a shadow it is asked once the answer is given. Knows
nothing of statistics, nor of when the experiment moves on.
"""

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.records import Outcome, Role
from distill.production.routing.assignment import Arm, assign, is_held_out, position
from distill.production.routing.challenger import Challenger, ChallengerError
from distill.production.serving.exchange import Answer, InferenceRequest, SingleRouter
from distill.production.serving.recording import Recorder
from distill.production.serving.refusals import RefusedError
from distill.production.serving.seen import Seen

OUTCOMES: dict[str, Outcome] = {"timeout": "timeout", "busy": "rejected"}  # others: error


@dataclass(kw_only=True)
class Trial:
    """A challenger that is being tried against a champion.

    Attributes:
        setting: who is tried against whom, and by which rules.
        challenger: the process; None once the service itself answers by it, as the champion.
        state: where the experiment is.
        deadline_ms: of the challenger; at most half of what a request has left.
        seen: by its training; None where that is as much as the champion's.
        num_failures: in a row, up to now.
        ban: why nobody is to be answered by it any more, from this moment on.
    """

    setting: Setting
    challenger: Challenger | None
    state: State
    deadline_ms: float
    seen: Seen | None = None
    num_failures: int = 0
    ban: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the challenger has nothing to do any more."""
        return self.state.stage.is_over and not self.state.weight

    @property
    def watched_s(self) -> float:
        """For how many seconds harm would still bring the old champion back."""
        now = time.time()
        return (self.state.until or 0) - now if self.state.is_watched(now) else 0.0

    def by(self, request: InferenceRequest, role: Role) -> Answer:
        """Make an answer of the challenger, without outputs yet."""
        odd_rows = request.odd_rows
        if self.seen is not None:
            odd_rows = self.seen.odd_rows(request.feeds, request.num_rows)
        return Answer(
            outputs={},
            model=self.setting.challenger.name,
            version=self.setting.challenger.version,
            artefact_sha256=self.setting.challenger.artefact_sha256,
            role=role,
            experiment=self.setting.experiment,
            stage=self.state.stage,
            odd_rows=odd_rows,
        )

    def counted(self, error: ChallengerError | None) -> None:
        """Count a failure, or that there was none."""
        self.num_failures = 0 if error is None else self.num_failures + 1
        if self.ban is None and self.num_failures >= self.setting.policy.max_consecutive_failures:
            self.ban = f"it failed {self.num_failures} times in a row; the last time: {error}"


class TrialRouter:
    """The champion alone, until there is a trial.

    Args:
        recorder: of answers that nobody is given.
        holdout: share of the units that are in no experiment.
    """

    def __init__(self, recorder: Recorder, holdout: float = 0.0) -> None:
        self.trial: Trial | None = None
        self.problem: str | None = None  # why there is no trial, or none that moves
        self._single, self._recorder, self._holdout = SingleRouter(), recorder, holdout
        self._shadows: set[asyncio.Task[None]] = set()

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
            self._missed(request, by, error, started)
            trial.counted(error)
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
        task = asyncio.create_task(self._shadow(trial, challenger, request))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)
        return True

    async def _shadow(
        self, trial: Trial, challenger: Challenger, request: InferenceRequest
    ) -> None:
        by, started = trial.by(request, "shadow"), time.monotonic()
        try:
            outputs = await _asked(challenger, request, trial.deadline_ms / 1000)
        except ChallengerError as error:
            self._missed(request, by, error, started)
            trial.counted(error)
        else:
            trial.counted(None)
            latency_ms = _since_ms(started)
            self._recorder.put(request, dataclasses.replace(by, outputs=outputs), latency_ms)

    def _missed(
        self, request: InferenceRequest, by: Answer, error: ChallengerError, started: float
    ) -> None:
        failure = OUTCOMES.get(error.kind, "error"), str(error)
        self._recorder.put(request, by, _since_ms(started), failure=failure)

    def status(self) -> dict[str, Any] | None:
        """Say which experiment is under way."""
        trial = self.trial
        if trial is None and self.problem is None:
            return None
        if trial is None:
            return {"stage": "none", "is_paused": False, "is_over": True, "why": self.problem}
        state, challenger = trial.state, trial.challenger
        return {
            "problem": self.problem,
            "name": trial.setting.experiment,
            "challenger": str(trial.setting.challenger),
            "stage": state.name,
            "weight": 0.0 if trial.ban else state.weight,
            "is_paused": state.is_paused,
            "is_over": trial.is_over,
            "why": trial.ban or state.why,
            "watched_s": trial.watched_s,
            "is_champion": challenger is None and not trial.is_over,
            "is_ready": challenger is not None and challenger.is_ready,
            "num_starts": 0 if challenger is None else challenger.num_starts,
            "last_error": None if challenger is None else challenger.last_error,
        }

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
