"""Whether a challenger may be tried now, and by what its inputs are judged.

Knows contracts, and what earlier experiments left behind; knows nothing of processes.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from distill.contract import CONTRACT_FILE, Contract, load_contract
from distill.production.experiment.course import latest_of
from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import Stage
from distill.production.prediction_log.connection import Engine
from distill.production.serving.seen import Seen


def contract_beside(path: Path) -> Contract | None:
    """Read the contract in the folder of an ONNX file; None where there is none.

    Raises:
        UserError: it is none that we can read.
    """
    return load_contract(path.parent) if (path.parent / CONTRACT_FILE).is_file() else None


def seen_otherwise(own: Contract | None, other: Contract | None) -> Seen | None:
    """What a challenger's training has seen; None where that is as much as the champion's.

    A challenger without a contract is judged by the champion's.

    Args:
        own: the champion's contract.
        other: the challenger's.
    """
    seen = Seen.of(other)
    return None if other is None or seen == Seen.of(own) else seen


@dataclass(frozen=True, kw_only=True)
class Hindrance:
    """Why somebody is not tried.

    Attributes:
        reason: in a sentence, the same as long as it is the same.
        until: when it is over, UTC seconds; None where that is not known.
        remedy: what to do about it, in a sentence.
    """

    reason: str
    until: float | None = None
    remedy: str = ""

    def __str__(self) -> str:
        """Say it, as of now."""
        left = None if self.until is None else max(self.until - time.time(), 0)
        when = "" if left is None else f" The next one is tried in {left:.0f} s."
        return self.reason + when + (f" {self.remedy}" if self.remedy else "")


def why_not(
    engine: Engine, setting: Setting, own: Contract | None, other: Contract | None
) -> Hindrance | None:
    """Say why somebody cannot be tried now: other classes, a cooldown, or one that is watched.

    Args:
        engine: an open log.
        setting: of the experiment that would begin; its cooldown counts, also after an earlier one.
        own: the champion's contract.
        other: the challenger's.

    Raises:
        UserError: the moves of the experiment before are not ours.
        LogUnavailableError: the log cannot be read now.
    """
    if own is not None and other is not None and _asks(own) != _asks(other):
        return Hindrance(
            reason=f"Expected a challenger with the inputs and classes of {setting.champion} but "
            f"{setting.challenger} has others: nobody could be compared."
        )
    before = latest_of(engine, setting.champion.name, but=setting.experiment)
    if before is None or before.state.until is None:
        return None
    state, until = before.state, before.state.until
    if state.stage is Stage.PROMOTED:
        found = Hindrance(
            reason=f"{before.setting.challenger} has become champion and is watched.", until=until
        )
    else:
        found = Hindrance(
            reason=f"The challenger before, {before.setting.challenger}, was sent away: "
            f"{state.why.removesuffix('.')}.",
            until=min(until, state.since + setting.policy.cooldown_seconds),
            remedy="To try it sooner, start `serve` with another `rollout.cooldown_seconds`; 0 "
            "waits for nothing.",
        )
    return found if found.until is not None and found.until > time.time() else None


def _asks(contract: Contract) -> tuple[tuple[str, ...], list[str]]:
    return contract.classes, contract.input_names
