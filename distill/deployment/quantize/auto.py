"""Try recipes, then layers, and say what to ship: the search that `quantize=auto` runs.

Joins files, figures and decisions; how each is had is the business of its own module.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from distill.deployment.quantize.choice import Candidate, Decision, Outcome, decide
from distill.deployment.quantize.graph import layers
from distill.deployment.quantize.layers import Probe, exclusions, in_groups
from distill.deployment.quantize.recipes import Recipe, StaticInt8
from distill.deployment.quantize.trials import Trials
from distill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Every recipe, measured; and where none will do, the best one's layers.

    Attributes:
        recipes: by name.
        max_candidates: files that the search over layers may make: two for each group of layers,
            the rest for choices among them; 0 for no such search.
        max_seconds: after which nothing new is begun.

    Raises:
        UsageError: a name is that of the float32 file.
    """

    recipes: Mapping[str, Recipe]
    max_candidates: int = 18
    max_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not self.recipes or "float32" in self.recipes:
            raise UsageError(
                "Expected `recipes` to hold one or more, none of them called float32, but got "
                f"{', '.join(self.recipes) or 'none'}."
            )

    @property
    def names(self) -> list[str]:
        """Every candidate that there may be."""
        return [*self.recipes, *(f"layers_{i + 1}" for i in range(self.max_candidates))]

    @property
    def num_calibration_samples(self) -> int:
        """How many images the recipes look at."""
        return max(recipe.num_calibration_samples for recipe in self.recipes.values())

    def most_seconds(self, timing: float) -> float:
        """Bound how long it takes: its own limit, and timing files, which may begin when it is up.

        Args:
            timing: seconds of timing files once: the recipes', the groups', the choices'.
        """
        return self.max_seconds + (3 if self.max_candidates else 1) * timing

    def __call__(self, trials: Trials) -> Decision:
        """Search, leaving every candidate in `trials`."""
        deadline = time.monotonic() + self.max_seconds
        for name, recipe in self.recipes.items():
            if time.monotonic() > deadline:
                trials.skip(name, recipe, f"not tried: {self.max_seconds:g} s were over")
            else:
                trials.make(name, recipe)
        trials.time()
        decision = decide(list(trials.found.values()))
        base = self._base(trials) if decision.recipe is None and self.max_candidates else None
        if base is None:
            return decision
        self._search_layers(trials, base, deadline)
        return decide(list(trials.found.values()))

    def _base(self, trials: Trials) -> str | None:
        """Name the static recipe whose layers to search: the faster ones' nearest, or the fastest.

        None where no static recipe for all operators could be timed.
        """
        timed = {
            name: trials.found[name]
            for name, recipe in self.recipes.items()
            if isinstance(recipe, StaticInt8)
            and not recipe.op_types
            and trials.found[name].latency_ratio is not None
        }
        faster = {name: c for name, c in timed.items() if c.is_shown_faster}
        if faster:
            return min(faster, key=lambda name: faster[name].logit_std or 0)
        return min(timed, key=lambda name: _ratio(timed[name])) if timed else None

    def _search_layers(self, trials: Trials, base: str, deadline: float) -> None:
        recipe, whole = self.recipes[base], trials.found[base]
        assert isinstance(recipe, StaticInt8)
        in_float = set(recipe.stays_in_float(trials.source.graph))
        names = [layer.name for layer in layers(trials.source.graph) if layer.name not in in_float]

        groups = in_groups(names, max(1, self.max_candidates // 3))
        free = iter(self.names[len(self.recipes) : len(self.names) - len(groups)])

        def make(excluded: tuple[str, ...]) -> Candidate | None:
            name = next(free, None)
            if name is None or time.monotonic() > deadline:
                return None
            own = replace(recipe, exclude=(*recipe.exclude, *excluded))
            return trials.make(name, own, base=base, excluded=excluded)

        trials.say(f"{base}: int8 for {len(groups)} groups of layers, each alone")
        errors: dict[tuple[str, ...], float] = {}
        for number, group in enumerate(groups):
            if time.monotonic() > deadline:
                trials.say(
                    f"{len(groups) - number} of {len(groups)} groups of layers were passed over: "
                    f"{self.max_seconds:g} s were over"
                )
                break
            errors[group] = trials.error(self._alone(recipe, names, group))
            make(group)
        trials.time()
        if decide(list(trials.found.values())).outcome is Outcome.INT8:
            return
        probes = [
            Probe(layers=c.excluded, error=errors[c.excluded], ratio=_ratio(c))
            for c in trials.found.values()
            if c.excluded and c.latency_ratio is not None
        ]
        assert whole.latency_ratio is not None
        low, high = whole.latency_ratio.interval
        for excluded in exclusions(_ratio(whole), probes, noise=(high - low) / 2):
            if excluded not in groups:
                candidate = make(excluded)
                if candidate is None or candidate.holds:
                    break  # every further one is more accurate and slower
        trials.time()

    @staticmethod
    def _alone(recipe: StaticInt8, names: list[str], group: tuple[str, ...]) -> StaticInt8:
        others = [name for name in names if name not in group]
        return replace(recipe, exclude=(*recipe.exclude, *others))


def _ratio(candidate: Candidate) -> float:
    assert candidate.latency_ratio is not None
    return candidate.latency_ratio.estimate
