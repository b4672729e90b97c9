"""Which arm of an experiment a unit belongs to: a pure function of its name, and it stays there.

Units are hashed onto [0, 1) and each arm is a range that only grows as the challenger's share does,
at both arms in one proportion. So no compared unit ever changes arms, and those of both arms have
been in the experiment for equally long. Knows nothing of requests or models.
"""

from enum import StrEnum

_BUCKETS = 10_000
_FNV_PRIME, _FNV_OFFSET = 0x01000193, 0x811C9DC5


class Arm(StrEnum):
    """What a unit is to an experiment."""

    CHALLENGER = "challenger"
    CONTROL = "control"  # answered by the champion, and compared
    REST = "rest"  # answered by the champion, and not compared
    HOLDOUT = "holdout"  # in no experiment at all, to see in the long run what they brought


def fnv1a(text: str) -> int:
    """Hash to 32 bits: Fowler, Noll & Vo, variant 1a, of the text in UTF-8."""
    value = _FNV_OFFSET
    for byte in text.encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value


def position(seed: str, unit: str) -> float:
    """Place a unit on [0, 1), in steps of 1/10000; as the second hash version of GrowthBook does.

    Args:
        seed: of the experiment, so that experiments are independent of each other.
        unit: who is assigned: a user, a device, or a request that stands for itself.
    """
    return fnv1a(str(fnv1a(seed + unit))) % _BUCKETS / _BUCKETS


def assign(at: float, weight: float, last: float) -> Arm:
    """Find the arm of a position.

    Args:
        at: see `position`.
        weight: share of all units that the challenger answers now.
        last: share that it answers at the last step, which is also its share of what is compared.
    """
    if 1 - last <= at < 1 - last + weight:
        return Arm.CHALLENGER
    return Arm.CONTROL if at < weight * (1 - last) / last else Arm.REST


def is_held_out(unit: str, holdout: float) -> bool:
    """Tell whether a unit is in no experiment, ever.

    Args:
        unit: who is assigned.
        holdout: share of the units.
    """
    return position("holdout", unit) < holdout
