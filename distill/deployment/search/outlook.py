"""What short trainings promise: which candidate may be the cheapest that holds the accuracy budget.

Plain numbers in, decisions out; knows nothing of networks or files. Validation samples alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import norm

from distill.budget import AccuracyBudget
from distill.statistics.metrics import Interval

# Log errors fall by a power of the epochs, each network's own (Hestness et al., "Deep Learning
# Scaling is Predictable, Empirically", 2017, of data). Wide, because it is 1 to 2 where a network
# has not learned yet and 0.3 where it nearly has; what is trained twice moves its own and the mean.
POWER, POWER_SPREAD, OWN_SPREAD = 0.6, 0.4, 0.4
SEED_VARIANCE = 0.02  # of a log error, from one seed to another


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A whole training of some epochs, seen on the validation set."""

    epochs: int
    num_wrong: float
    num_samples: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return 1 - self.num_wrong / self.num_samples

    @property
    def log_error(self) -> float:
        """Logarithm of the share of wrong answers, half a sample from never and always."""
        return float(np.log((self.num_wrong + 0.5) / (self.num_samples + 1)))

    @property
    def variance(self) -> float:
        """Variance of `log_error` that so few samples, and one seed, leave."""
        return 1 / (self.num_wrong + 0.5) + SEED_VARIANCE


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A limit on accuracy as it shows on validation.

    Attributes:
        name: of the check.
        accuracy: that has to be shown, as a fraction.
        reference_error: of the model it is held against, None for none.
        variance: of the accuracy, for the reference was seen on few samples, too.
    """

    name: str
    accuracy: float
    reference_error: float | None
    variance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a candidate may come to, trained in full.

    Attributes:
        accuracy: predicted, a fraction on validation.
        interval: of it.
        needed: accuracy at which the verdict can be expected to pass: the floor that is hardest to
            hold, and half the width of the interval that the test set will leave.
        chance: that it comes to that.
        chance_cheapest: that it does and nothing cheaper does.
    """

    accuracy: float
    interval: Interval
    needed: float
    chance: float
    chance_cheapest: float


def floors(
    budget: AccuracyBudget,
    *,
    teacher: float | None,
    baseline: float | None,
    incumbent: float | None = None,
    num_samples: int,
) -> list[Floor]:
    """Translate the accuracy budget to validation.

    Args:
        budget: the limits.
        teacher: accuracy on validation, None for unknown.
        baseline: likewise.
        incumbent: likewise; held to the same gain as the baseline.
        num_samples: of validation.
    """
    found = []
    if budget.min is not None:
        found.append(Floor(name="accuracy", accuracy=budget.min, reference_error=None))
    drop, gain = budget.max_drop_vs_teacher, budget.min_gain_vs_baseline
    references = (
        ("drop_vs_teacher", teacher, None if drop is None else -drop),
        ("gain_vs_baseline", baseline, gain),
        ("gain_vs_incumbent", incumbent, gain),
    )
    for name, reference, margin in references:
        if reference is not None and margin is not None:
            error = 1 - reference
            smoothed = (error * num_samples + 0.5) / (num_samples + 1)
            found.append(
                Floor(
                    name=name,
                    accuracy=reference + margin,
                    reference_error=error,
                    variance=smoothed * (1 - smoothed) / num_samples,
                )
            )
    return found


def power(trainings: Sequence[Sequence[Trained]]) -> tuple[float, float]:
    """Estimate the mean power at which errors fall with epochs, and its variance.

    A normal prior, and every candidate that was trained twice: precision-weighted. Two trainings of
    one length say nothing of it.

    Args:
        trainings: of each candidate.
    """
    weight, total = 1 / POWER_SPREAD**2, POWER / POWER_SPREAD**2
    for own in trainings:
        for short, long in pairwise(sorted(own, key=lambda done: done.epochs)):
            if short.epochs == long.epochs:
                continue
            span = np.log(long.epochs / short.epochs)
            fell = (short.log_error - long.log_error) / span
            variance = (short.variance + long.variance) / span**2 + OWN_SPREAD**2
            weight, total = weight + 1 / variance, total + fell / variance
    return float(total / weight), float(1 / weight)


def in_full(
    own: Sequence[Trained], epochs: int, mean: float, variance: float
) -> tuple[float, float]:
    """Predict the log error of a full training, and its variance.

    A line through a candidate's log errors against log epochs, its slope with a normal prior
    (Bayesian linear regression with known variances).

    Args:
        own: trainings of the candidate.
        epochs: of the full one.
        mean: of the power, over candidates.
        variance: of it.
    """
    spread = variance + OWN_SPREAD**2
    precision, total = np.diag([1e-9, 1 / spread]), np.array([0.0, mean / spread])
    for done in own:
        row = np.array([1.0, np.log(max(1.0, epochs / done.epochs))])
        precision = precision + np.outer(row, row) / done.variance
        total = total + row * done.log_error / done.variance
    covariance = np.linalg.inv(precision)
    return float((covariance @ total)[0]), float(covariance[0, 0])


def outlooks(
    trainings: Mapping[str, Sequence[Trained]],
    limits: Sequence[Floor],
    *,
    epochs: int,
    num_test: int,
    confidence: float,
) -> dict[str, Outlook]:
    """Predict what candidates come to, trained in full.

    Args:
        trainings: by candidate, the cheapest first; of each the shorter training first.
        limits: on accuracy.
        epochs: of a full training.
        num_test: samples of the test set that the verdict will look at.
        confidence: of the verdict's intervals, and of those here.
    """
    mean, variance = power(list(trainings.values()))
    z = float(norm.ppf(0.5 + confidence / 2))
    needed = {limit.name: _needed(limit, num_test, z) for limit in limits}
    found, none_cheaper = {}, 1.0
    for name, own in trainings.items():
        log_error, uncertain = in_full(own, epochs, mean, variance)
        spread, error = float(np.sqrt(uncertain)), min(1.0, float(np.exp(log_error)))
        chances = [_chance(lim, needed[lim.name], log_error, uncertain) for lim in limits]
        chance = min(chances, default=1.0)
        found[name] = Outlook(
            accuracy=1 - error,
            interval=(
                max(0.0, 1 - float(np.exp(log_error + z * spread))),
                1 - float(np.exp(log_error - z * spread)),
            ),
            needed=max(needed.values(), default=0.0),
            chance=chance,
            chance_cheapest=chance * none_cheaper,
        )
        none_cheaper *= 1 - chance
    return found


def _chance(limit: Floor, needed: float, log_error: float, uncertain: float) -> float:
    """Give the chance that a limit is held, over what is uncertain of it and of the candidate."""
    points, weights = np.polynomial.hermite_e.hermegauss(64)
    allowed = 1 - needed + np.sqrt(limit.variance) * points
    holds = norm.cdf((np.log(np.maximum(allowed, 1e-12)) - log_error) / np.sqrt(uncertain))
    return float(weights @ holds / weights.sum())


def _needed(limit: Floor, num_test: int, z: float) -> float:
    """Add to a floor half the width that the verdict's interval has there.

    Two models differ on about as many samples as the worse of them gets wrong.
    """
    discordant = min(0.5, max(1 - limit.accuracy, limit.reference_error or 0.0))
    return limit.accuracy + z * float(np.sqrt((discordant + 2 / num_test) / num_test))
