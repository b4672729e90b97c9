"""How a search goes about it: its settings, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a search.

    Attributes:
        rungs: lengths of the short trainings, as shares of the full one's epochs, rising. Each is
            a whole one by its own schedule.
        keep: share of the candidates that goes on after each.
        min_chance: of holding the accuracy budget, below which nothing is trained in full.
        max_attempts: full trainings, each with a verdict on the test set.
        max_candidates: of a larger space, so many are drawn.
        max_minutes: of all stages together, over all sittings; nothing is begun that would not
            end in time, by what attempts before have taken and the limits that are configured.

    Raises:
        UsageError: a setting makes no sense.
    """

    rungs: Sequence[float] = (0.1, 0.3)
    keep: float = 0.5
    min_chance: float = 0.1
    max_attempts: int = 3
    max_candidates: int = 40
    max_minutes: float = 60.0

    def __post_init__(self) -> None:
        if sorted(set(self.rungs)) != list(self.rungs) or not all(0 < r < 1 for r in self.rungs):
            raise UsageError(
                "Expected `search.rungs` to be rising shares between 0 and 1 but got "
                f"{list(self.rungs)}."
            )
        for name, low, high in (("keep", 0, 1), ("min_chance", 0, 1)):
            if not low < getattr(self, name) <= high:
                raise UsageError(
                    f"Expected `search.{name}` above 0 and at most 1 but got {getattr(self, name)}."
                )
        for name in ("max_attempts", "max_candidates", "max_minutes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Expected `search.{name}` above 0 but got {getattr(self, name)}.")

    def epochs(self, full: int | None) -> list[int]:
        """Turn the rungs into epochs, each shorter than a full training of `full`.

        Raises:
            UsageError: there is none, or a full training has no number of epochs.
        """
        if type(full) is not int or full < 1:
            raise UsageError(
                "Expected `trainer.max_epochs` to be a whole number above 0, of which short "
                f"trainings are shares, but got {'null' if full is None else full}. Set it."
            )
        lengths = {max(1, round(share * full)) for share in self.rungs}
        shorter = sorted(length for length in lengths if length < full)
        if not shorter:
            raise UsageError(
                f"Expected short trainings before the full one of {full} epochs but "
                f"`search.rungs={list(self.rungs)}` are none. Raise `trainer.max_epochs`, or name "
                "shares of it."
            )
        return shorter
