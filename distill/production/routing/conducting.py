"""How experiments are led: what a configuration says of it, and refuses.

Knows nothing of those who are tried.
"""

from dataclasses import dataclass, field

from distill.errors import UsageError
from distill.production.routing.challenger import Limits


@dataclass(frozen=True, kw_only=True)
class Conducting:
    """How an experiment is led.

    Attributes:
        tick_seconds: between looks at the log.
        slow_ms: above which an answer is slow: the budget's p99.
        deadline_ms: of the challenger.
        holdout: share of the units that is in no experiment, ever.
        limits: of the challenger's process.
    """

    tick_seconds: float = 1.0
    slow_ms: float = 100.0
    deadline_ms: float = 250.0
    holdout: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("tick_seconds", "slow_ms", "deadline_ms"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Expected `{name}` above 0 but got {getattr(self, name)}.")
        if not 0 <= self.holdout < 1:
            raise UsageError(
                f"Expected `holdout` from 0 to below 1, a share of the units, but got "
                f"{self.holdout}."
            )
