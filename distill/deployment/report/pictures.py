"""The pictures of a report, from plain values to inline SVG. Knows nothing of files or verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from distill.pages import svg
from distill.wording import SHARES, metric_name, metric_title

Values = Mapping[str, Any]

COLOURS = {
    "baseline": "#8a8f98",
    "incumbent": "#4a4f57",
    "teacher": "#7a3e9d",
    "control": "#c2701c",
    "student": "#1f6fb4",
    "student int8": "#1a7f4b",
    "student fp16": "#2a9d8f",
}

MIN_BIN = 10


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model: latency in ms and its metric, each as {"estimate", "interval"}."""

    name: str
    latency: Values
    metric: Values


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a curve of training shows: a figure of the history, how it is drawn, and in words."""

    figure: str
    draw: Callable[[float], float]
    text: str


def metric_against_latency(
    points: Sequence[Point], metric: str, *, baseline: Values, limit_ms: float | None
) -> Markup:
    """Draw a metric against p95 latency with intervals, the baseline and the budget's limit."""
    scale, unit = (100, " (%)") if metric in SHARES else (1, "")

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.axhline(scale * baseline["estimate"], color=COLOURS["baseline"], linestyle="--")
        axes.annotate(
            "best baseline",
            (0, scale * baseline["estimate"]),
            xycoords=("axes fraction", "data"),
            xytext=(4, 4),
            textcoords="offset points",
            ha="left",
            color=COLOURS["baseline"],
        )
        for point in points:
            x, y = point.latency["estimate"], scale * point.metric["estimate"]
            low, high = point.latency["interval"]
            bottom, top = (y if end is None else scale * end for end in point.metric["interval"])
            axes.errorbar(
                x,
                y,
                xerr=[[max(0, x - low)], [max(0, high - x)]],
                yerr=[[max(0, y - bottom)], [max(0, top - y)]],
                fmt="o",
                color=COLOURS[point.name],
                capsize=3,
                markersize=7,
                label=point.name,
            )
        axes.set_xscale("log")
        if limit_ms is not None:
            axes.axvline(limit_ms, color="#b3261e", linestyle=":", label="p95 budget")
        axes.margins(x=0.12, y=0.15)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("p95 latency of a single call (ms)")
        axes.set_ylabel(f"test {metric_name(metric)}{unit}")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    title = f"{metric_title(metric)} against p95 latency of each model"
    return svg(draw, width=9, height=3.8, title=title)


def training_axis(histories: Mapping[str, Sequence[Values]]) -> Axis:
    """Choose what training curves show, by what was logged on validation."""
    first = next(history[0] for history in histories.values() if history)
    if "val/mse" in first:  # in units in which the network learns
        text = "RMSE on validation, in standard deviations"
        return Axis(figure="val/mse", draw=np.sqrt, text=text)
    if "val/pinball" in first:
        text = "Pinball loss on validation, in standard deviations"
        return Axis(figure="val/pinball", draw=float, text=text)
    figure = "val/label_accuracy" if "val/label_accuracy" in first else "val/accuracy"
    name = metric_title(figure.removeprefix("val/"))
    return Axis(figure=figure, draw=lambda share: 100 * share, text=f"{name} on validation (%)")


def training_curves(
    histories: Mapping[str, Sequence[Values]], kept: Mapping[str, int], axis: Axis
) -> Markup:
    """Draw each role's validation figure by epoch, with a dot at the one kept."""

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        for role, history in histories.items():
            if not history:
                continue
            values = [axis.draw(epoch[axis.figure]) for epoch in history]
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, color=COLOURS[role], label=role, linewidth=1.6)
            axes.plot(kept[role] + 1, values[kept[role]], "o", color=COLOURS[role])
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis.text)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()

    return svg(draw, width=5, height=3.6, title=f"{axis.text} by epoch")


def by_output(found: Values, metric: str) -> Markup:
    """Draw the metric of each label, number or step of the horizon, model by model."""
    scale, unit = (100, " (%)") if metric in SHARES else (1, "")

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        places = range(1, len(found["outputs"]) + 1)
        for role, values in found["values"].items():
            name = role.replace("_", " ")
            style = "--" if name == "baseline" else "-"
            scaled = [scale * value for value in values]
            axes.plot(
                places, scaled, color=COLOURS[name], label=name, linestyle=style, linewidth=1.4
            )
        axes.set_xlabel(f"output, from {found['outputs'][0]} to {found['outputs'][-1]}")
        axes.set_ylabel(f"test {metric_name(metric)}{unit}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()

    return svg(draw, width=5, height=3.6, title=f"{metric_title(metric)} of each output")


def answers_against_labels(labels: Sequence[float], answers: Sequence[float], name: str) -> Markup:
    """Draw answers, [K], against what is true, [K]."""

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        ends = [min(*labels, *answers), max(*labels, *answers)]
        axes.plot(ends, ends, color=COLOURS["baseline"], linestyle="--", linewidth=1)
        axes.scatter(labels, answers, s=9, color=COLOURS["student"], alpha=0.35, linewidths=0)
        axes.set_xlabel(f"{name}, label")
        axes.set_ylabel(f"{name}, answer")

    return svg(draw, width=5, height=3.6, title="Answers against labels")


def forecast(found: Values) -> Markup:
    """Draw a window, what came after it, and what was said of that."""

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        past = found["past"]
        ahead = range(1, len(found["label"]) + 1)
        axes.plot(range(1 - len(past), 1), past, color="#3c4149", linewidth=1.4)
        axes.plot(ahead, found["label"], color="#3c4149", linewidth=1.4, label="what came")
        axes.plot(
            ahead, found["naive"], color=COLOURS["baseline"], linestyle="--", linewidth=1.4,
            label=found["name"],
        )  # fmt: skip
        axes.plot(ahead, found["student"], color=COLOURS["student"], linewidth=1.8, label="student")
        axes.axvline(0.5, color="#c9ccd1", linewidth=1)
        axes.set_xlabel("steps from the forecast origin")
        axes.legend()

    return svg(draw, width=5, height=3.6, title="A forecast beside what came")


def calibration(models: Mapping[str, Sequence[Values]]) -> Markup:
    """Draw a reliability diagram; a dot's area is the share of samples in its bin."""

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.plot([0, 100], [0, 100], color=COLOURS["baseline"], linestyle="--", linewidth=1)
        for role, bins in models.items():
            name = role.replace("_", " ")
            bins = [b for b in bins if b["count"] >= MIN_BIN]
            confidence = [100 * b["confidence"] for b in bins]
            accuracy = [100 * b["accuracy"] for b in bins]
            total = sum(b["count"] for b in bins)
            area = [max(6, 250 * b["count"] / total) for b in bins]
            axes.plot(confidence, accuracy, color=COLOURS[name], linewidth=1, alpha=0.6)
            axes.scatter(confidence, accuracy, s=area, color=COLOURS[name], alpha=0.6, label=name)
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("accuracy (%)")
        legend = axes.legend(loc="upper left")
        for handle in legend.legend_handles:
            handle.set_sizes([36])

    return svg(draw, width=5, height=3.6, title="Reliability diagram")


def latency_by_percentile(
    calls: Mapping[str, NDArray[np.int64]], limits_ms: Mapping[float, float]
) -> Markup:
    """Draw every artefact's latency up to its slowest calls, and the limits.

    The axis of percentiles stretches towards 100, where the calls are that people notice
    (Gil Tene's HdrHistogram plots).

    Args:
        calls: artefact to nanoseconds.
        limits_ms: percentile to limit.
    """
    ticks = [0, 50, 90, 95, 99, 99.9]

    def place(percentile: Any) -> Any:
        return -np.log10(1 - np.asarray(percentile) / 100)

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        for name, taken in calls.items():
            ordered = np.sort(taken.ravel()) / 1e6
            share = np.arange(len(ordered)) / len(ordered)
            kept = np.unique((np.linspace(0, 1, 400) ** 0.2 * (len(ordered) - 1)).astype(int))
            axes.step(-np.log10(1 - share[kept]), ordered[kept], where="post", label=name)
        for number, (level, limit) in enumerate(limits_ms.items()):
            axes.plot(
                [place(level)] * 2,
                [0, limit],
                color="#b3261e",
                linestyle=":",
                marker="_",
                label="budget" if number == 0 else None,
            )
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(float(taken.min()) for taken in calls.values()) / 1.2e6)
        axes.set_xticks(place(ticks), [f"{tick:g}" for tick in ticks])
        axes.set_xlim(0, 3.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("percentile of calls")
        axes.set_ylabel("latency (ms)")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    return svg(draw, width=9, height=3.8, title="Latency of each artefact by percentile")
