"""Moves an experiment on as its log says, and follows the moves of others.

Every move is a row of the log; of two who move at once the first is right. Knows nothing of the
challenger's process, nor of who is tried next.
"""

import json
import logging
import time
from dataclasses import dataclass

from distill.files import to_json
from distill.production.experiment.course import read_course, step_of
from distill.production.experiment.decision import Decision, decide
from distill.production.experiment.gathering import aftermath, gather, usual
from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import State, advance, sent_away, watch
from distill.production.experiment.watch import Share, decide_aftermath
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.moves import Move, add_move, moves_of
from distill.production.routing.trial import Trial

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Mover:
    """Moves one trial after another.

    Attributes:
        engine: the log.
    """

    engine: Engine
    _usual: tuple[str, dict[str, Share]] | None = None  # of which experiment

    def advance(self, trial: Trial) -> None:
        """Take over what others moved, then move on where the log says so."""
        self.catch_up(trial)
        if trial.is_over:
            return
        if trial.ban is not None:
            policy = trial.setting.policy
            self.move(trial, sent_away(policy, trial.state, trial.ban, time.time()), None)
        elif trial.state.is_watched(time.time()):
            self._watch(trial)
        elif not trial.state.stage.is_over:
            self._judge(trial)

    def catch_up(self, trial: Trial) -> None:
        """Take over the moves that other processes made."""
        for move in moves_of(self.engine, trial.setting.experiment, after=trial.num_moves):
            trial.state = step_of(move).state
            trial.num_moves = move.number

    def move(self, trial: Trial, state: State, why: Decision | Setting | None) -> None:
        """Write a move down; where another process was faster, its move counts.

        Each names the setting that it was made by: a file may have been registered once more, and
        it is the version that was asked for its verdict that is promoted.
        """
        evidence = {} if why is None else to_json(why)
        if not isinstance(why, Setting):
            evidence["setting"] = to_json(trial.setting)
        move = Move(
            experiment=trial.setting.experiment,
            number=trial.num_moves + 1,
            time=time.time(),
            state=json.dumps(to_json(state)),
            evidence=json.dumps(evidence),
        )
        if not add_move(self.engine, move):
            self.catch_up(trial)
            return
        trial.num_moves, trial.state = move.number, state
        log.info("%s: %s, because %s.", trial.setting.experiment, state.name, state.why)

    def _judge(self, trial: Trial) -> None:
        policy = trial.setting.policy
        evidence, units = gather(self.engine, trial.setting, trial.state)
        before, decision = trial.state, decide(policy, evidence)
        trial.decision = decision
        following = advance(
            policy,
            before,
            decision,
            challenger_units=units,
            now=time.time(),
            unproven=lambda: trial.unproven,
        )
        if (following.stage, following.step) != (before.stage, before.step):
            self.move(trial, following, decision)
        else:
            trial.state = following

    def _watch(self, trial: Trial) -> None:
        setting, since = trial.setting, trial.state.since
        if self._usual is None or self._usual[0] != setting.experiment:
            begun = read_course(self.engine, setting.experiment).begun
            self._usual = setting.experiment, usual(self.engine, setting, begun, since)
        found = aftermath(self.engine, setting, self._usual[1], since)
        decision = trial.decision = decide_aftermath(setting.policy, found)
        following = watch(setting.policy, trial.state, decision, now=time.time())
        if following is not trial.state:
            self.move(trial, following, decision)
