"""What of an input, and of whoever asked, may be kept; applied before a row reaches the disk.

Knows nothing of databases. A hash hides a value from those who lack the log's salt, which is kept
in the log itself: whoever has the whole log can still try values that they can guess.
"""

import dataclasses
import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal

from distill.errors import UsageError
from distill.production.prediction_log.records import Prediction

_INPUTS, _UNITS = ("keep", "hash", "drop"), ("keep", "hash")


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What is kept.

    Attributes:
        inputs: `keep` them, keep their `hash` to tell equal ones, or `drop` them.
        units: `keep` them, or their `hash`, by which a unit is still the same one.
    """

    inputs: Literal["keep", "hash", "drop"] = "keep"
    units: Literal["keep", "hash"] = "keep"

    def __post_init__(self) -> None:
        """Refuse what is none of these: a typing mistake must not keep what should go."""
        for name, known in (("inputs", _INPUTS), ("units", _UNITS)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"Expected `{name}` to be one of {', '.join(known)} but got "
                    f"{getattr(self, name)!r}."
                )

    def applied(self, prediction: Prediction, salt: bytes) -> Prediction:
        """Take away what may not be kept.

        Args:
            prediction: as it was answered.
            salt: the log's.
        """
        changed: dict[str, bytes | str | None] = {}
        if self.inputs != "keep":
            changed |= {"input": None, "input_sha256": None}
        if self.inputs == "hash" and prediction.input is not None:
            changed["input_sha256"] = salted(prediction.input, salt)
        if self.units == "hash" and prediction.unit is not None:
            changed["unit"] = salted(prediction.unit.encode(errors="replace"), salt)
        return dataclasses.replace(prediction, **changed) if changed else prediction


def salted(value: bytes, salt: bytes) -> str:
    """Hash with a key (HMAC-SHA256, RFC 2104)."""
    return hmac.new(salt, value, hashlib.sha256).hexdigest()
