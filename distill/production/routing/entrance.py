"""Whether a challenger may be tried now, and by what its inputs are judged.

Knows contracts, and what earlier experiments left behind; knows nothing of processes.
"""

import time
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


def why_not(
    engine: Engine, setting: Setting, own: Contract | None, other: Contract | None
) -> str | None:
    """Say why somebody cannot be tried now: other classes, a cooldown, or one that is watched.

    Args:
        engine: an open log.
        setting: of the experiment that would begin.
        own: the champion's contract.
        other: the challenger's.

    Raises:
        UserError: the moves of the experiment before are not ours.
        LogUnavailableError: the log cannot be read now.
    """
    if own is not None and other is not None and _asks(own) != _asks(other):
        return (
            f"Expected a challenger with the inputs and classes of {setting.champion} but "
            f"{setting.challenger} has others: nobody could be compared."
        )
    before = latest_of(engine, setting.champion.name, but=setting.experiment)
    left = 0.0 if before is None else (before.state.until or 0) - time.time()
    if before is None or left <= 0:
        return None
    if before.state.stage is Stage.PROMOTED:
        return f"The new champion is watched; the next challenger is tried in {left:.0f} s."
    return f"The challenger before was sent away; the next one is tried in {left:.0f} s."


def _asks(contract: Contract) -> tuple[tuple[str, ...], list[str]]:
    return contract.classes, contract.input_names
