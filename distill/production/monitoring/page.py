"""What monitoring found, as one page that opens offline, for whoever answers for the product.

Knows a report; knows nothing of logs.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup

from distill.pages import percent, percent_interval, render, svg
from distill.production.monitoring.audit import Audited
from distill.production.monitoring.label_free import LabelFree
from distill.production.monitoring.report import Report
from distill.production.monitoring.simulation import Outcome
from distill.statistics.metrics import Estimate
from distill.wording import SHARES, metric_interval, metric_name, metric_text, metric_title

INK, TEACHER, BASE = "#1f6fb4", "#7a4fa3", "#b3261e"
NAMES = {
    "disagreement": "how likely the teacher finds the answers",
    "confidence": "the model's own confidence (CBPE)",
    "threshold": "a threshold on its entropy (ATC)",
}
ADVICE = {
    "retrain": "Train again: `feedback collect`, then `pipeline experiment=feedback`. The new "
    "model has to pass the same gate before it takes over.",
    "investigate": "Somebody should look at what changed. No rule says that answers are worse.",
    None: "Nothing to do.",
}
BADGES = {"retrain": "fail", "investigate": "inconclusive", None: "pass"}


def page(found: Report, model: str) -> str:
    """Render it as HTML."""
    return render(
        "monitor.html",
        {
            "title": model,
            "outcome": found.asks or ("held" if found.held else "fine"),
            "badge": BADGES[found.asks or ("investigate" if found.held else None)],
            "headline": headline(found),
            "advice": advice(found),
            "since": _time(found.since),
            "until": _time(found.until),
            "num_rows": f"{found.num_rows:,}",
            "num_drawn": f"{found.num_drawn:,}",
            "audit": found.audit,
            "labels": _labels(found),
            "metric": metric_name(found.metric),
            "age": f"{found.age_days:.0f}",
            "accuracy": _accuracy(found),
            "picture": _picture(found) if len(found.windows) > 1 else None,
            "reading": _reading(found),
            "changes": [
                {
                    "name": one.name,
                    "group": one.group,
                    "badge": "inconclusive" if one.stands_out else "pass",
                    "word": "changed" if one.stands_out else "as before",
                    "distance": f"{one.statistic} {one.distance:.3f}",
                    "psi": "" if one.psi is None else f"{one.psi:.3f}",
                    "p": f"{one.p_value:.4f}",
                    "effect": "" if one.effect is None else f"{one.effect * 100:+.2f}",
                    "most": one.most or "",
                }
                for one in found.changes
            ],
            "together": found.together,
            "has_effect": any(one.effect is not None for one in found.changes),
            "skew": percent(found.skew),
            "skews": [
                {"what": f"{one.kind}: {one.column}", "count": f"{one.count:,}"}
                for one in found.skews
            ],
            "triggers": [
                {
                    "name": one.name,
                    "badge": BADGES[one.asks] if one.fires else "pass",
                    "word": one.asks if one.fires else "quiet",
                    "why": one.why + (f". Held {one.held}" if one.held else ""),
                }
                for one in found.triggers
            ],
            "cannot_know": found.cannot_know,
            "examples": [
                {
                    "id": one.id,
                    "said": f"{one.said[0]} ({one.said[1]:.0%})",
                    "teacher": f"{one.teacher[0]} ({one.teacher[1]:.0%})",
                }
                for one in found.examples
            ],
        },
    )


def headline(found: Report) -> str:
    """Say in one sentence how good the model is now, and how that is known."""
    then = f"on its test set it was {metric_text(found.metric, found.reference, 1)}"
    now: Estimate | None = None
    how = "by its own confidence, without any label"
    if found.audited is not None:
        now, how = _estimate(found.audited), f"by {found.audited.num_labels:,} labels"
        how += " of a random slice"
    elif "disagreement" in found.label_free:
        now, how = _estimate(found.label_free["disagreement"]), "by the teacher, without any label"
    elif found.label_free:
        now = _estimate(found.label_free["confidence"])
    title = metric_title(found.metric)
    if now is None:
        return f"{title} cannot be known without labels of a random slice; {then}."
    interval = metric_interval(found.metric, now.interval, 1)
    return f"{title} is {metric_text(found.metric, now.estimate, 1)} ({interval}) {how}; {then}."


def advice(found: Report) -> str:
    """Say in a sentence or two what is to be done, and what keeps it from being done now."""
    if found.asks == "retrain" or not found.held:
        return ADVICE[found.asks]
    worse = [one.name for one in found.held if one.tells_worse]
    names = ", ".join(worse or [one.name for one in found.held])
    said = "Answers are worse" if worse else "It is time to train again"
    look = " Meanwhile somebody should look at what changed." if worse or found.asks else ""
    return f"{said} ({names}); training is held {found.held[0].held}.{look}"


def _labels(found: Report) -> str:
    """Say how many labels are known, and how many of them were looked at."""
    if found.num_labels_read >= found.num_labels:
        return f"{found.num_labels:,} labels"
    return f"about {found.num_labels:,} labels, {found.num_labels_read:,} looked at"


def simulated_page(
    outcomes: Sequence[Outcome],
    model: str,
    *,
    first_day: int,
    rows: str,
    cannot_know: Sequence[str] = (),
) -> str:
    """Render a simulation as HTML.

    Args:
        outcomes: of each policy.
        model: its name.
        first_day: that policies live through.
        rows: how many they lived through, in words.
        cannot_know: what was lost, and why.
    """
    return render(
        "simulate.html",
        {
            "title": model,
            "headline": simulated_headline(outcomes),
            "picture": _lives(outcomes, first_day),
            "lived": rows,
            "cannot_know": cannot_know,
            "rows": [
                {
                    "policy": one.policy,
                    "accuracy": percent(one.accuracy, 1),
                    "regret": f"{one.regret:.2f}",
                    "trainings": str(len(one.trainings)),
                    "needed": str(one.num_needed),
                    "labels": f"{one.labels:,}",
                    "delay": "" if one.delay_days is None else f"{one.delay_days:.1f}",
                }
                for one in outcomes
            ],
        },
    )


def simulated_headline(outcomes: Sequence[Outcome]) -> str:
    """Say which policy lost least, and what it took."""
    best = min(outcomes, key=lambda one: (one.regret, one.labels))
    return (
        f'"{best.policy}" would have lost least: {best.regret:.2f} accuracy-days, with '
        f"{len(best.trainings)} trainings and {best.labels:,} labels."
    )


def _lives(outcomes: Sequence[Outcome], first_day: int) -> Markup:
    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        for place, one in enumerate(outcomes):
            inner = 100 * np.convolve(one.by_day, np.ones(3) / 3, "valid")
            days = np.arange(first_day + 1, first_day + 1 + len(inner))
            # Those that go the same way lie on each other: the ones below are wider.
            width = 1.2 + 0.5 * (len(outcomes) - 1 - place)
            (line,) = axes.plot(days, inner, label=one.policy, linewidth=width)
            trained = np.isin(days, one.trainings)
            axes.plot(days[trained], inner[trained], "o", color=line.get_color(), markersize=7,
                      markeredgecolor="white")  # fmt: skip
        axes.set_xlabel("day of the log")
        axes.set_ylabel("accuracy (%), mean of three days")
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="best")

    return svg(draw, width=9, height=3.8, title="Accuracy by day, under each policy")


def _accuracy(found: Report) -> list[dict[str, str]]:
    rows = []
    if found.audited is not None:
        own = found.audited
        helped = (
            ""
            if own.saving < 1.05
            else f"; the teacher makes them worth {own.saving:.1f} times as many"
        )
        rows.append(_row(found, f"{own.num_labels:,} labels{helped}", own, "yes"))
    for name, one in found.label_free.items():
        rows.append(_row(found, NAMES[name], one, "no"))
    if found.bounds is not None:
        low, high = found.bounds
        rows.append({
            "how": "bounds by the teacher's error on those labels",
            "estimate": "",
            "interval": percent_interval((low, high), 1),
            "sees": "yes",
        })  # fmt: skip
    if found.teacher_accuracy is not None:
        rows.append({
            "how": "the teacher itself, on those labels",
            "estimate": percent(found.teacher_accuracy, 1),
            "interval": "",
            "sees": "yes",
        })  # fmt: skip
    return rows


def _estimate(found: Audited | LabelFree) -> Estimate:
    return Estimate(estimate=found.estimate, interval=found.interval)


def _row(found: Report, how: str, one: Audited | LabelFree, sees: str) -> dict[str, str]:
    return {
        "how": how,
        "estimate": metric_text(found.metric, one.estimate, 1),
        "interval": metric_interval(found.metric, one.interval, 1),
        "sees": sees,
    }


def _reading(found: Report) -> str:
    decay = found.decay
    if decay is None:
        return "More weeks with labels of a random slice are needed before a curve says anything."
    parts = []
    if decay.half_life_days is None or decay.half_life_interval[1] is None:
        least = decay.half_life_interval[0]
        more = "" if least is None else f"; half of what it knows lasts {least:,.0f} days at least"
        parts.append(f"No end of it can be seen{more}.")
    else:
        low, high = decay.half_life_interval
        assert low is not None
        parts.append(
            f"Half of what it knows beyond chance is gone after {decay.half_life_days:,.0f} days "
            f"({low:,.0f} to {high:,.0f})."
        )
    if found.baseline is not None:
        name, day = found.baseline[0].replace("_", " "), decay.crossing_day
        low, high = decay.crossing_interval
        if day is not None and low is not None:
            most = "never" if high is None else f"{high:,.0f}"
            parts.append(
                f"It is worth less than the baseline ({name}) from day {day:,.0f} "
                f"({low:,.0f} to {most})."
            )
        else:
            parts.append(f"It is not seen to fall to the baseline ({name}).")
    return " ".join(parts)


def _picture(found: Report) -> Markup:
    """Draw how good it is by age, beside the baseline."""
    ages = [window.age_days for window in found.windows]
    times = 100 if found.metric in SHARES else 1
    name = metric_title(found.metric)

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        values = [one.estimate * times for one in found.windows]
        ends = [(one.interval[0] * times, one.interval[1] * times) for one in found.windows]
        errors = [
            [max(v - low, 0) for v, (low, _) in zip(values, ends, strict=True)],
            [max(high - v, 0) for v, (_, high) in zip(values, ends, strict=True)],
        ]
        axes.errorbar(ages, values, errors, fmt="o", color=INK, label="audited")
        if found.decay is not None:
            grid = [ages[0] + (ages[-1] - ages[0]) * at / 50 for at in range(51)]
            curve = [found.decay.at(age) * times for age in grid]
            axes.plot(grid, curve, color=INK, linewidth=1.5)
        axes.axhline(found.reference * times, color="#5b616b", linewidth=1, linestyle=":",
                     label="on its test set")  # fmt: skip
        if found.baseline is not None:
            axes.axhline(found.baseline[1] * times, color=BASE, linewidth=1, linestyle="--",
                         label=f"baseline: {found.baseline[0].replace('_', ' ')}")  # fmt: skip
        axes.set_xlabel("days since its first answer")
        axes.set_ylabel(f"{name} (%)" if times == 100 else name)
        axes.legend(frameon=False, fontsize=9, loc="best")

    return svg(draw, width=9, height=3.6, title=f"{name} by age")


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
