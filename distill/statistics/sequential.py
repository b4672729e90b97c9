"""Statistics that stay right however often one looks: counts, means, and looks that are planned.

A fixed-sample test that is looked at after every observation calls an unchanged world changed in
nearly half of all experiments; what stands here does so in at most `alpha` of them, whenever one
looks and for whatever reason one stops. Knows nothing of models, logs or who is champion.

Whoever is assigned is the unit: each counts once, in one arm, or no guarantee holds.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from distill.errors import UsageError

Numbers = NDArray[np.float64]

CONCENTRATION = 20.0  # of the prior: small differences are told soonest
RARE = 0.02  # where the mixture of a rate lies that is hoped to be small
MIN_UNITS, MIN_EVENTS = 100, 20  # in each arm, before a limit theorem is believed
TUNED_AT = 5000.0  # units at which an interval is narrowest, where nobody says
_STEPS = 201  # of the grid on which a density is carried from look to look


def log_e_value(
    treated: Any,
    control: Any,
    *,
    share: float = 0.5,
    harm_only: bool = False,
) -> Numbers:
    """Weigh counts of an event in two arms; exact for every sample, at every moment.

    If both arms have the same rate, an event falls into the treated arm with the known probability
    `share`, however the rate itself drifts. The e-value is the likelihood of a mixture of other
    probabilities over that one's:

        B(a + s1, b + s0) / B(a, b) / (share^s1 (1 - share)^s0),   a, b = 20 share, ...

    and reaches 1 / alpha in at most alpha of all sequences (Ville). Lindon & Malek,
    "Anytime-Valid Inference for Multinomial Count Data", 2022.

    Args:
        treated: events s1 in the treated arm, whole numbers of any shape.
        control: events s0 in the other, of the same shape.
        share: of the assigned that are in the treated arm.
        harm_only: mix probabilities above `share` alone, so that a better arm never alarms.

    Returns:
        Its natural logarithm, of the same shape.
    """
    treated, control = np.asarray(treated, np.float64), np.asarray(control, np.float64)
    a, b = CONCENTRATION * share, CONCENTRATION * (1 - share)
    log_e = special.betaln(a + treated, b + control) - special.betaln(a, b)
    log_e = log_e - treated * math.log(share) - control * math.log1p(-share)
    if harm_only:
        # The share of the mixture that lies above, after and before the counts.
        after = special.betaincc(a + treated, b + control, share)
        with np.errstate(divide="ignore"):
            log_e = log_e + np.log(after) - math.log(special.betaincc(a, b, share))
    return log_e


def p_value(log_e: float) -> float:
    """Turn an e-value into the p-value that it guarantees, whenever one looks."""
    return min(1.0, math.exp(-max(log_e, 0.0)))


def share_bounds(
    successes: int, failures: int, *, around: float = 0.5, alpha: float = 0.05
) -> tuple[float, float]:
    """Bound the chance of success; an exact confidence sequence.

    All chances against which the mixture of `log_e_value` has not reached 1 / alpha.

    Args:
        successes: so far.
        failures: so far.
        around: where the mixture lies, and the interval is narrowest.
        alpha: chance that the truth is ever outside.
    """
    a, b = CONCENTRATION * around, CONCENTRATION * (1 - around)
    mixture = special.betaln(a + successes, b + failures) - special.betaln(a, b) + math.log(alpha)

    def excess(chance: float) -> float:
        return mixture - special.xlogy(successes, chance) - special.xlog1py(failures, -chance)

    tiny = 1e-12
    likeliest = successes / (successes + failures) if successes + failures else around
    low, high = 0.0, 1.0
    if successes and excess(tiny) > 0:
        low = float(optimize.brentq(excess, tiny, likeliest))  # type: ignore[arg-type]
    if failures and excess(1 - tiny) > 0:
        high = float(optimize.brentq(excess, likeliest, 1 - tiny))  # type: ignore[arg-type]
    return low, high


def trials_needed(
    successes: int, trials: int, below: float, *, around: float = 0.5, alpha: float = 0.05
) -> int | None:
    """How many trials it takes, to a percent, until the upper bound of a chance is down to `below`.

    Of those that are still to come none is a success, so it is the least that may be needed. As
    `share_bounds` has it; None where no number within reason does.

    Args:
        successes: so far.
        trials: so far.
        below: above 0 and below 1.
        around: of `share_bounds`.
        alpha: likewise.
    """
    counts = np.geomspace(max(trials, 1), max(trials, 1) * 1e4, 1000)
    counts = counts[(counts > successes) & (successes < below * counts)]
    failures, (a, b) = counts - successes, (CONCENTRATION * around, CONCENTRATION * (1 - around))
    excess = special.betaln(a + successes, b + failures) - special.betaln(a, b) + math.log(alpha)
    excess -= special.xlogy(successes, below) + special.xlog1py(failures, -below)
    enough = np.flatnonzero(excess >= 0)
    return math.ceil(counts[enough[0]]) if len(enough) else None


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is known of one arm's units.

    Attributes:
        count: of units.
        mean: over them.
        variance: between them, unbiased.
        num_events: of a yes-or-no outcome the rarer answer; None of other numbers.
    """

    count: int
    mean: float
    variance: float
    num_events: int | None = None

    @staticmethod
    def of(count: int, total: float, total_of_squares: float) -> "Moments":
        """Take them from sums over units: of 1, of the outcome, and of its square.

        An outcome that equals its square is yes or no, and the rarer of them counts as events.
        """
        if not count:
            return Moments(count=0, mean=0.0, variance=0.0)
        mean = total / count
        centred = max(total_of_squares - count * mean**2, 0.0)
        is_event = total == total_of_squares
        return Moments(
            count=count,
            mean=mean,
            variance=centred / max(count - 1, 1),
            num_events=round(min(total, count - total)) if is_event else None,
        )

    @property
    def is_enough(self) -> bool:
        """Whether a limit theorem may be believed."""
        events = self.count if self.num_events is None else self.num_events
        return self.count >= MIN_UNITS and events >= MIN_EVENTS


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference of means, with what is believed of it at every moment.

    Attributes:
        estimate: treated minus control.
        interval: of the confidence sequence; endless while there is too little to believe.
        p_value: of no difference, valid whenever one looks.
        count: of units.
        is_enough: whether there is enough for the limit theorem that this rests on.
    """

    estimate: float
    interval: tuple[float, float]
    p_value: float
    count: int
    is_enough: bool


def mean_difference(
    treated: Moments, control: Moments, *, alpha: float = 0.05, tuned_at: float = TUNED_AT
) -> Estimate:
    """Bound the difference of two arms' means, by `half_width`.

    Args:
        treated: arm.
        control: arm.
        alpha: chance that the difference is ever outside.
        tuned_at: units, of both arms, at which the interval is narrowest for its alpha.
    """
    arms = (treated, control)
    counts, variances = ([getattr(arm, name) for arm in arms] for name in ("count", "variance"))
    return _estimated(
        treated.mean - control.mean,
        float(squared_error(counts, variances)),
        treated.count + control.count,
        treated.is_enough and control.is_enough,
        (alpha, tuned_at),
    )


def squared_error(counts: Any, variances: Any) -> Numbers:
    """The variance of a difference of means, by each arm's own or by all, whichever is larger.

    A small arm of a skewed outcome has met none of the rare large values at first: its mean and its
    variance are too small together, and its own variance alone makes false alarms (at lognormal
    outcomes, a tenth of the units in one arm and alpha of 0.05 in 12 % of all experiments).

    Args:
        counts: units of both arms, [2, ...].
        variances: within each, [2, ...].
    """
    counts, variances = np.asarray(counts, np.float64), np.asarray(variances, np.float64)
    known = np.maximum(counts, 1)
    freedom = np.maximum(counts - 1, 0)
    pooled = (freedom * variances).sum(axis=0) / np.maximum(freedom.sum(axis=0), 1)
    return np.maximum((variances / known).sum(axis=0), pooled * (1 / known).sum(axis=0))


def paired_difference(
    wins: int, losses: int, count: int, *, alpha: float = 0.05, tuned_at: float = TUNED_AT
) -> Estimate:
    """Bound the difference of two success rates over the same units.

    Only pairs on which the two differ tell who is better, by `log_e_value` at even odds, exact at
    any number; how much better, two confidence sequences at alpha / 2 tell together: that of the
    mean, and that of wins and of losses alone, which holds where hardly any pair differs.

    Args:
        wins: pairs on which the treated alone succeeds.
        losses: pairs on which the other alone does.
        count: of all pairs.
        alpha: chance that the difference is ever outside.
        tuned_at: pairs at which the interval is narrowest for its alpha.
    """
    if not count:
        return _estimated(0.0, 0.0, 0, False, (alpha, tuned_at))
    pairs = Moments.of(count, wins - losses, wins + losses)
    found = _estimated(
        pairs.mean,
        pairs.variance / count,
        count,
        count >= MIN_UNITS and wins + losses >= MIN_EVENTS,
        (alpha / 2, tuned_at),
    )
    # A quarter of the error for each of the two rates.
    won, lost = (
        share_bounds(events, count - events, around=RARE, alpha=alpha / 4)
        for events in (wins, losses)
    )
    return Estimate(
        estimate=pairs.mean,
        interval=(
            max(found.interval[0], won[0] - lost[1]),
            min(found.interval[1], won[1] - lost[0]),
        ),
        p_value=p_value(float(log_e_value(wins, losses))),
        count=count,
        is_enough=found.is_enough,
    )


def _estimated(
    estimate: float, squared_error: float, count: int, is_enough: bool, how: tuple[float, float]
) -> Estimate:
    alpha, tuned_at = how
    if not is_enough or not squared_error:
        return Estimate(
            estimate=estimate,
            interval=(-math.inf, math.inf),
            p_value=1.0,
            count=count,
            is_enough=False,
        )
    half = float(half_width(count, count * squared_error, alpha=alpha, tuned_at=tuned_at))
    rho2 = _rho_squared(alpha, tuned_at)
    spread = count * rho2 + 1
    log_p = math.log(spread) / 2 - rho2 * estimate**2 / squared_error * count / (2 * spread)
    return Estimate(
        estimate=estimate,
        interval=(estimate - half, estimate + half),
        p_value=math.exp(min(log_p, 0.0)),
        count=count,
        is_enough=True,
    )


def half_width(count: Any, variance: Any, *, alpha: float, tuned_at: float) -> Numbers:
    """Half the width of an asymptotic confidence sequence of a mean.

        sqrt(variance) * sqrt(2 (n rho^2 + 1) / (n rho)^2 * ln(sqrt(n rho^2 + 1) / alpha))

    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", 2021. It holds for large n: see `Moments.is_enough`.

    Args:
        count: n, numbers of any shape.
        variance: of one observation, n times the squared standard error; of the same shape.
        alpha: chance that the mean is ever outside.
        tuned_at: n at which it is narrowest.
    """
    count, rho2 = np.asarray(count, np.float64), _rho_squared(alpha, tuned_at)
    spread = count * rho2 + 1
    inside = 2 * spread / (count**2 * rho2) * np.log(np.sqrt(spread) / alpha)
    return np.sqrt(np.asarray(variance, np.float64) * inside)


def _rho_squared(alpha: float, tuned_at: float) -> float:
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tuned_at


def planned_bounds(fractions: Any, *, alpha: float = 0.05) -> Numbers:
    """Bounds of |z| for looks that are planned, two-sided: later ones are nearly those of no look.

    Each side spends 2 - 2 Phi(z / sqrt(t)) by the fraction t of the planned units, which resembles
    O'Brien & Fleming, "A Multiple Testing Procedure for Clinical Trials", 1979 (Lan & DeMets,
    "Discrete Sequential Boundaries for Clinical Trials", 1983). Where the most units are known this
    tells a difference sooner than a confidence sequence; one look more than planned undoes it.

    Args:
        fractions: of the planned units at each look, [K], rising to at most 1.
        alpha: chance of a false alarm over all looks.

    Returns:
        The bounds, [K].

    Raises:
        UsageError: the fractions do not rise within (0, 1].
    """
    fractions = np.asarray(fractions, np.float64)
    if not len(fractions) or np.any(np.diff(fractions, prepend=0) <= 0) or fractions[-1] > 1:
        raise UsageError(
            f"Expected looks at fractions that rise, of (0, 1], but got {fractions.tolist()}."
        )
    spent = 4 * special.ndtr(special.ndtri(alpha / 4) / np.sqrt(fractions))
    points, mass = np.polynomial.legendre.leggauss(_STEPS)
    bounds, nodes, weights = [], np.zeros(1), np.ones(1)  # where the walk is, with which mass
    before = np.diff(fractions, prepend=0)
    for step, total, error in zip(before, fractions, np.diff(spent, prepend=0), strict=True):
        scale = math.sqrt(step)

        def excess(bound: float, *at: Any) -> float:
            nodes, weights, scale, total, error = at
            edge = bound * math.sqrt(total)
            out = special.ndtr((nodes - edge) / scale) + special.ndtr((-edge - nodes) / scale)
            return float(weights @ out) - error

        at = (nodes, weights, scale, total, error)
        bound = float(optimize.brentq(excess, 0, 40, args=at))  # type: ignore[arg-type]
        bounds.append(bound)
        edge = bound * math.sqrt(total)
        inside = points * edge
        density = _normal((inside[:, None] - nodes) / scale) / scale
        nodes, weights = inside, mass * edge * (density @ weights)
    return np.array(bounds)


def _normal(x: Any) -> Any:
    """The standard normal density."""
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
