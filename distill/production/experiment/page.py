"""An experiment as one page that opens offline, in words for whoever decides about the product.

Knows what a story says; knows nothing of logs.
"""

import math
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from distill.pages import render, svg
from distill.production.experiment.decision import Decision
from distill.production.experiment.rollout import Stage
from distill.production.experiment.story import Story

HEADLINES = {
    Stage.SHADOW: "The challenger answers beside the champion, and nobody sees its answers yet.",
    Stage.CANARY: "The challenger answers {weight} of the units; all others get the champion.",
    Stage.DECIDED: "The question is answered: the challenger may take over.",
    Stage.PROMOTED: "The challenger has taken over.",
    Stage.ABORTED: "The challenger was sent away; everybody gets the champion.",
    Stage.ROLLED_BACK: "The challenger had taken over, and does not answer any more.",
}
INK, BAD = "#1f6fb4", "#b3261e"


def page(story: Story) -> str:
    """Render it as HTML."""
    state, policy = story.state, story.setting.policy
    decision = story.decision
    return render(
        "experiment.html",
        {
            "title": f"{story.setting.challenger} against {story.setting.champion}",
            "outcome": story.outcome,
            "headline": HEADLINES[state.stage].format(weight=f"{state.weight:.0%}"),
            "why": _sentence(decision.why if not state.stage.is_over else state.why),
            "picture": picture(story) if story.points else None,
            "reading": _reading(story),
            "findings": _findings(decision),
            "aftermath": _findings(story.aftermath) if story.aftermath else None,
            "watched": _watched(story),
            "steps": [
                {
                    "time": _time(step.time),
                    "name": step.state.name,
                    "why": _sentence(step.state.why),
                }
                for step in story.steps
            ],
            "alpha": f"{policy.alpha:.0%}",
            "time": _time(story.time),
        },
    )


def _findings(decision: Decision) -> list[dict[str, Any]]:
    return [
        {
            "rule": finding.rule.replace("_", " "),
            "outcome": finding.outcome,
            "note": _sentence(finding.note),
        }
        for finding in decision.findings
    ]


def _watched(story: Story) -> str:
    """Say what harm would still bring, or has brought."""
    state = story.state
    if state.stage.is_failed:
        return "It was watched until then."
    until = _time(state.until or state.since)
    if state.is_watched(story.time):
        return (
            f"Until {until} UTC the old champion is warm, and back at once if one of these fails."
        )
    return f"It was watched until {until} UTC; now `promote rollback` brings the old champion back."


def picture(story: Story) -> Markup:
    """Draw what was believed of the outcome at each moment, against the margin."""
    policy = story.setting.policy
    scale = 100.0 if policy.judges_labels else 1.0
    unit = "accuracy, points" if policy.judges_labels else policy.outcome
    start = story.steps[0].time
    span, hour = story.points[-1].time - start, 3600.0
    per, word = next(
        (per, word)
        for per, word in ((24 * hour, "days"), (hour, "hours"), (60.0, "minutes"), (0.0, "seconds"))
        if span >= 2 * per
    )
    per = per or 1.0
    times = [(point.time - start) / per for point in story.points]
    estimates = [point.estimate.estimate * scale for point in story.points]
    known = [
        (at, point.estimate.interval)
        for at, point in zip(times, story.points, strict=True)
        if all(map(math.isfinite, point.estimate.interval))
    ]

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        if known:
            moments = [at for at, _ in known]
            low, high = ([ends[side] * scale for _, ends in known] for side in (0, 1))
            axes.fill_between(moments, low, high, color=INK, alpha=0.15, linewidth=0)
            _zoom(axes, estimates, low, high, policy.margin * scale)
        axes.plot(times, estimates, color=INK, linewidth=2)
        axes.axhline(0, color="#3c4149", linewidth=1)
        if policy.margin:
            axes.axhline(-policy.margin * scale, color=BAD, linestyle="--", linewidth=1)
            axes.annotate(
                "margin", (1.01, -policy.margin * scale), xycoords=("axes fraction", "data"),
                ha="left", va="center", color=BAD, fontsize=9, annotation_clip=False,
            )  # fmt: skip
        for step in story.steps[1:]:
            at = (step.time - start) / per
            axes.axvline(at, color="#8a8f98", linewidth=0.8, linestyle=":")
            axes.annotate(
                step.state.name, (at, 1), xycoords=("data", "axes fraction"), rotation=90,
                ha="right", va="top", fontsize=8, color="#5b616b",
            )  # fmt: skip
        axes.set_xlabel(f"{word} since the experiment began")
        axes.set_ylabel(f"challenger minus champion\n{unit}")

    return svg(draw, width=9, height=3.6, title="What was believed of the challenger, over time")


def _zoom(
    axes: Any, estimates: list[float], low: list[float], high: list[float], margin: float
) -> None:
    """Show the late part of the interval: early on it is as wide as can be."""
    early = len(low) // 4
    lowest, highest = min(low[early:]), max(high[early:])
    room = 0.15 * (highest - lowest) or 1.0
    axes.set_ylim(
        min(lowest, -1.3 * margin, *estimates[-3:]) - room, max(highest, *estimates[-3:], 0) + room
    )


def _reading(story: Story) -> str:
    """Say how the picture is read."""
    margin = story.setting.policy.margin
    above = "zero" if not margin else "the dashed line"
    return (
        "The line is the difference seen so far; the band is where the true one lies, and stays "
        f"right however often one looks. Once all of the band is above {above} the challenger may "
        "go forward; once all of it is below, it goes."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
