"""By which rules a challenger goes from its first shadow to production, or is sent away.

Knows no figures and no requests.
"""

import functools
from dataclasses import dataclass

from distill.errors import UsageError
from distill.files import sha256_json, to_json
from distill.production.prediction_log.records import LABEL
from distill.statistics.sequential import TUNED_AT

LATER_RULES = ("skew_margin", "rollback_window_seconds")
STEPS = (0.01, 0.05, 0.10, 0.25, 0.50)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules of one experiment.

    Attributes:
        steps: shares of the units that the challenger answers, one after another; none: it never
            answers anyone, and is judged by its shadow alone.
        starts_in_shadow: whether it answers beside the champion, unseen, before the first step.
        promotes: whether it becomes champion after the last step; else it is only reported on.
        outcome: that decides: `label`, whether answers are right, or a number such as revenue,
            which only answers that were given can bring: without a shadow.
        less_is_better: of such a number.
        margin: by how much the challenger may be worse and counts as no worse, in the outcome's
            unit; of labels as a share of the answers. 0 asks it to be better.
        alpha: chance that the outcome ever decides wrongly.
        guardrail_margin: share of the units by which more may meet with harm and it counts as none.
        guardrail_alpha: chance that one guardrail ever sends a harmless challenger away.
        skew_margin: share of the units by which more may send values that the challenger's training
            has not seen, than send values new to the champion's; None does not look.
        sample_ratio_alpha: chance that a sound assignment is ever called broken.
        tuned_at: units at which the outcome's interval is narrowest.
        min_units: that the challenger must have answered before a step forward.
        max_consecutive_failures: of the challenger, before it is sent away on the spot.
        max_step_seconds: without a decision, after which the challenger is sent away.
        cooldown_seconds: before another may be tried.
        rollback_window_seconds: after its promotion in which the guardrails go on watching the
            challenger, and bring the old champion back if it does harm; 0 does not watch.
    """

    steps: tuple[float, ...] = STEPS
    starts_in_shadow: bool = True
    promotes: bool = True
    outcome: str = LABEL
    less_is_better: bool = False
    margin: float = 0.01
    alpha: float = 0.05
    guardrail_margin: float = 0.02
    guardrail_alpha: float = 0.01
    skew_margin: float | None = 0.05
    sample_ratio_alpha: float = 0.01
    tuned_at: float = TUNED_AT
    min_units: int = 100
    max_consecutive_failures: int = 5
    max_step_seconds: float = 7 * 24 * 3600.0
    cooldown_seconds: float = 3600.0
    rollback_window_seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse rules that make no sense."""
        rises = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not rises or any(not 0 < step < 1 for step in self.steps):
            raise UsageError(
                "Expected `steps` that rise, each above 0 and below 1 (the champion's part is what "
                f"they are compared with), but got {list(self.steps)}."
            )
        if not self.steps and not self.starts_in_shadow:
            raise UsageError("Expected `steps`, or `starts_in_shadow=true`, but there is neither.")
        if self.starts_in_shadow and not self.judges_labels:
            raise UsageError(
                f"Expected `starts_in_shadow=false` with `outcome={self.outcome}` but it is true: "
                "nobody sees a shadow's answers, so they bring none. Or let labels decide."
            )
        for name in ("alpha", "guardrail_alpha", "sample_ratio_alpha"):
            value = getattr(self, name)
            if not 0 < value < 0.5:
                raise UsageError(f"Expected `{name}` above 0 and below 0.5 but got {value}.")
        for name in ("margin", "cooldown_seconds", "rollback_window_seconds"):
            if getattr(self, name) < 0:
                raise UsageError(f"Expected `{name}` of at least 0 but got {getattr(self, name)}.")
        if self.skew_margin is not None and not 0 < self.skew_margin < 1:
            raise UsageError(
                "Expected `skew_margin` above 0 and below 1, a share of the units, or null not to "
                f"look at skew, but got {self.skew_margin}."
            )
        for name in (
            "guardrail_margin",
            "min_units",
            "max_consecutive_failures",
            "tuned_at",
            "max_step_seconds",
        ):
            if getattr(self, name) <= 0:
                raise UsageError(f"Expected `{name}` above 0 but got {getattr(self, name)}.")

    @property
    def share(self) -> float:
        """Of the compared units, that the challenger has at every step; a shadow has half."""
        return self.steps[-1] if self.steps else 0.5

    @property
    def judges_labels(self) -> bool:
        """Whether answers are right or wrong, so that a shadow tells as much as traffic."""
        return self.outcome == LABEL


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One of the two.

    Attributes:
        name: of the model.
        version: in the registry; None of a plain path.
        artefact_sha256: of the file.
    """

    name: str
    version: int | None
    artefact_sha256: str

    def __str__(self) -> str:
        version = "" if self.version is None else f" version {self.version}"
        return f"{self.name}{version} ({self.artefact_sha256[:8]})"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an experiment was set out to be; kept with its first move.

    Attributes:
        champion: who answers.
        challenger: who is tried.
        policy: the rules.
        slow_ms: above which an answer is slow.
    """

    champion: Contender
    challenger: Contender
    policy: Policy
    slow_ms: float

    @functools.cached_property
    def experiment(self) -> str:
        """The name: the same two by the same rules are the same experiment, and go on with it."""
        shas = (self.champion.artefact_sha256[:12], self.challenger.artefact_sha256[:12])
        policy = to_json(self.policy)
        for name in LATER_RULES:  # experiments from before there were any keep their name
            if policy[name] == getattr(Policy, name):
                del policy[name]
        rules = sha256_json([policy, self.slow_ms])[:8]
        return "-".join((self.champion.name, *shas, rules))
