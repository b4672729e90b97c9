"""The audit slice: a share of the log drawn independently of everything, which alone may judge.

Whether a prediction is in it follows from its id by a hash, so that whoever draws it draws the same
one. What was chosen for being hard, or easy, says nothing of the rest; the slice does, each of its
rows with the known probability with which it was drawn (Horvitz, Thompson, "A generalization of
sampling without replacement from a finite universe", 1952). Knows ids and times.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError

DEFAULT_SHARE = 0.02  # of a log that nobody has drawn from yet
MIN_ROWS = 30  # with a label; fewer decide nothing about a model that was trained again


def place_of(prediction_id: str) -> float:
    """Where an id falls in [0, 1), uniformly: the first 64 bits of its SHA-256."""
    digest = hashlib.sha256(b"distill audit:" + prediction_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, kw_only=True)
class Share:
    """What share of the predictions is audited from some time on.

    Attributes:
        since: UTC, in seconds since 1970; of the predictions.
        share: above 0, up to 1; the probability of each to be drawn.
    """

    since: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Shares in the order of time.

    A new share holds from then on alone: what was chosen before it came could otherwise turn into
    an audit, which would then be of hard rows before others.
    """

    shares: tuple[Share, ...]

    def probability(self, time: float) -> float:
        """With which probability a prediction of that time is drawn; 0 before the first share."""
        return next((own.share for own in reversed(self.shares) if own.since <= time), 0.0)

    def has(self, prediction_id: str, time: float) -> bool:
        """Whether a prediction is drawn."""
        return place_of(prediction_id) < self.probability(time)


def check_share(share: float) -> float:
    """Return an audit's share, or refuse it.

    Raises:
        UsageError: it is none; 0 is none, since without an audit nothing is known.
    """
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise UsageError(
            f"Expected `audit_share` above 0 and up to 1 but got {share}. Without a random slice "
            "nobody can tell how good the model or the teacher is: rows that were chosen are not "
            "like the others. 0.01 to 0.05 is usual."
        )
    return float(share)


def share_to_keep(asked: float | None, held: float | None) -> float:
    """Give the share that whoever only reads an audit goes by, or refuse another one.

    Args:
        asked: for; None takes what is held.
        held: the share in force; None where nothing was drawn yet.

    Raises:
        UsageError: the share is none, or another one than is in force.
    """
    if asked is None:
        return DEFAULT_SHARE if held is None else held
    share = check_share(asked)
    if held is not None and share != held:
        raise UsageError(
            f"Expected `looking.audit_share={held:g}`, which `feedback select` draws this log's "
            f"audit with, but got {share:g}. Leave it out; `feedback select` alone changes it."
        )
    return share


def evenly(ids: Sequence[str], probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Thin an audit to rows that were all drawn with the smallest probability among them, [N].

    They are a simple random sample of all that the audit was drawn from, for which binomial bounds
    are exact; without this rows of a time with a larger share would count more.
    """
    if not len(ids):
        return np.zeros(0, bool)
    smallest = float(np.min(probabilities))
    return np.array([place_of(one) < smallest for one in ids])
