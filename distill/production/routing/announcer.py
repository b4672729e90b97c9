"""Says on the terminal why nobody is tried, once for each reason; a rollout is never silent.

Has a logger of its own: of several processes one is enough.
"""

import logging
from datetime import UTC, datetime

from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import Stage, State

log = logging.getLogger(__name__)


class Announcer:
    """Remembers what was said last."""

    def __init__(self) -> None:
        self._said: str | None = None

    def say(self, reason: str, text: str | None = None) -> None:
        """Say why nobody is tried, unless that was said last.

        Args:
            reason: the same as long as it is the same.
            text: with what changes from moment to moment; None is the reason itself.
        """
        if reason != self._said:
            self._said = reason
            log.info("Nobody is tried beside the champion. %s", text or reason)

    def begun(self, setting: Setting, state: State, unproven: str | None) -> None:
        """Say what becomes of a challenger that is tried now, or has been before."""
        if state.stage.is_over:
            self.say(_over(setting, state, unproven))
            return
        self._said = None
        if unproven is not None and setting.policy.promotes and setting.policy.steps:
            log.warning("%s will not become champion by itself: %s.", setting.challenger, unproven)


def _over(setting: Setting, state: State, unproven: str | None) -> str:
    """Say how an experiment has ended that will not begin anew."""
    when = datetime.fromtimestamp(state.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    why = state.why.removesuffix(".")
    if state.stage is Stage.DECIDED:
        then = take_over(setting, unproven)
        return f"{setting.challenger} is decided for since {when}: {why}. {then}"
    return (
        f"{setting.challenger} was tried by the same rules before, and sent away at {when}: {why}. "
        "Make another version the challenger, or try it by other rules, such as `rollout.margin=`."
    )


def take_over(setting: Setting, unproven: str | None) -> str:
    """Say how a challenger that has been decided for becomes champion."""
    if unproven is not None:
        return f"It does not become champion by itself: {unproven}."
    version = setting.challenger.version
    if version is None:
        return "Start `serve` with its file as `artefact=`."
    return f"Run `python scripts/promote.py to=champion version={version}`."
