"""The picture of a search: accuracy against p95, the budget, and who was dropped where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import LogLocator, NullFormatter

from distill.metrics import Interval
from distill.pages import svg

BUDGET, DROPPED, RACING, REFUSED, WINNER = "#b3261e", "#8fb3d4", "#1f6fb4", "#b6bac1", "#1a7f4b"
HUMANS = "#5a7d2a"
_OFFSETS = [(7, 5), (7, -11), (-7, 5), (-7, -11), (7, 14), (-7, 14), (7, -20), (-7, -20), (16, 0)]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One candidate: its number, p95 in ms, and what is known of its accuracy, as fractions.

    Attributes:
        label: beside it.
        p95_ms: of its cheapest file.
        colour: says what became of it.
        measured: accuracy after its last short training; None for what was never trained.
        interval: of it.
        predicted: in full; None where it was not.
        is_winner: drawn larger.
    """

    label: str
    p95_ms: float
    colour: str
    measured: float | None = None
    interval: Interval | None = None
    predicted: float | None = None
    is_winner: bool = False


def pareto(
    dots: Sequence[Dot],
    lines: Mapping[str, tuple[float, str]],
    *,
    limit_ms: float | None,
    legend: Mapping[str, str],
) -> Markup:
    """Draw candidates, the front of those that were trained, and what they are held against.

    Args:
        dots: the candidates.
        lines: name to an accuracy and a colour, drawn across.
        limit_ms: on p95.
        legend: what a colour of the dots means.
    """

    def draw(canvas: Any) -> None:
        axes = canvas.subplots()
        trained = [dot for dot in dots if dot.measured is not None]
        heights = [100 * y for dot in trained for y in (dot.measured, dot.predicted) if y]
        heights += [100 * y for y, _ in lines.values()]
        low, high = min(heights, default=0), max(heights, default=100)
        bottom = low - 0.22 * max(high - low, 1)
        axes.set_xscale("log")
        for dot in dots:
            if dot.measured is None:
                axes.plot(dot.p95_ms, bottom, "x", color=dot.colour, markersize=6, zorder=2)
            else:
                _draw_dot(axes, dot)
        front = _front(trained)
        axes.plot(
            [dot.p95_ms for dot in front],
            [100 * _height(dot) for dot in front],
            color="#5b616b",
            linewidth=1,
            zorder=1,
        )
        for accuracy, colour in lines.values():
            axes.axhline(100 * accuracy, color=colour, linestyle="--", linewidth=1.1, zorder=1)
        if limit_ms is not None:
            axes.axvline(limit_ms, color=BUDGET, linestyle=":", zorder=1)
        axes.set_ylim(bottom - 0.06 * (high - bottom), high + 0.08 * (high - bottom))
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("p95 latency of a single call, untrained (ms)")
        axes.set_ylabel("accuracy on validation (%)")
        _name_lines(axes, lines)
        _legend(canvas, axes, legend, front, limit_ms)
        _place_labels(canvas, axes, dots, bottom)

    return svg(draw, width=9, height=5, title="Accuracy of each candidate against its p95 latency")


def _height(dot: Dot) -> float:
    return dot.predicted if dot.predicted is not None else dot.measured or 0.0


def _draw_dot(axes: Any, dot: Dot) -> None:
    assert dot.measured is not None
    y = 100 * dot.measured
    if dot.interval is not None:
        ends = [[max(0, y - 100 * dot.interval[0])], [max(0, 100 * dot.interval[1] - y)]]
        axes.errorbar(dot.p95_ms, y, yerr=ends, color=dot.colour, elinewidth=1, alpha=0.45)
    axes.plot(dot.p95_ms, y, "o", color=dot.colour, markersize=4, zorder=3)
    if dot.predicted is not None:
        size = 11 if dot.is_winner else 7
        marker = "*" if dot.is_winner else "o"
        face = dot.colour if dot.is_winner else "white"
        axes.plot([dot.p95_ms] * 2, [y, 100 * dot.predicted], color=dot.colour, linewidth=1)
        axes.plot(
            dot.p95_ms,
            100 * dot.predicted,
            marker,
            color=dot.colour,
            markerfacecolor=face,
            markersize=size,
            zorder=4,
        )


def _front(trained: Sequence[Dot]) -> list[Dot]:
    """Those that no quicker one is as accurate as."""
    front: list[Dot] = []
    for dot in sorted(trained, key=lambda dot: (dot.p95_ms, -_height(dot))):
        if not front or _height(dot) > _height(front[-1]):
            front.append(dot)
    return front


def _name_lines(axes: Any, lines: Mapping[str, tuple[float, str]]) -> None:
    """Write the names of the lines at the right, one above the other where they are close."""
    low, high = axes.get_ylim()
    taken = -float("inf")
    for name, (accuracy, colour) in sorted(lines.items(), key=lambda item: item[1][0]):
        at = max((100 * accuracy - low) / (high - low), taken + 0.045)
        taken = at
        axes.annotate(
            f"{name} {100 * accuracy:.1f} %",
            (1.01, at),
            xycoords="axes fraction",
            va="center",
            color=colour,
            fontsize=9,
        )


def _legend(
    canvas: Any, axes: Any, legend: Mapping[str, str], front: Sequence[Dot], limit_ms: float | None
) -> None:
    handles = []
    for colour, meaning in legend.items():
        marker = {REFUSED: "x", WINNER: "*"}.get(colour, "o")
        handles += axes.plot([], [], marker, color=colour, label=meaning)
    if front:
        handles += axes.plot([], [], "-", color="#5b616b", linewidth=1, label="front")
    if limit_ms is not None:
        handles += axes.plot([], [], ":", color=BUDGET, label="p95 budget")
    canvas.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)


def _place_labels(canvas: Any, axes: Any, dots: Sequence[Dot], bottom: float) -> None:
    """Put each label where it covers no dot and no other label, as far as there is such a place."""
    canvas.draw_without_rendering()
    spots = [
        axes.transData.transform((d.p95_ms, bottom if d.measured is None else 100 * _height(d)))
        for d in dots
    ]
    scale = canvas.dpi / 72
    taken = [(x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale) for x, y in spots]
    order = sorted(range(len(dots)), key=lambda i: not dots[i].is_winner)
    for i in order:
        dot, (x, y) = dots[i], spots[i]
        width, height = 5.2 * len(dot.label) * scale, 9 * scale
        boxes = []
        for dx, dy in _OFFSETS:
            left = x + dx * scale - (width if dx < 0 else 0)
            lower = y + dy * scale - height / 4
            boxes.append((left, lower, left + width, lower + height))
        overlaps = [sum(_overlap(box, other) for other in taken) for box in boxes]
        best = overlaps.index(min(overlaps))
        taken.append(boxes[best])
        dx, dy = _OFFSETS[best]
        axes.annotate(
            dot.label,
            (dot.p95_ms, bottom if dot.measured is None else 100 * _height(dot)),
            xytext=(dx, dy),
            textcoords="offset points",
            ha="right" if dx < 0 else "left",
            fontsize=8,
            color=dot.colour,
            fontweight="bold" if dot.is_winner else None,
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
