"""The picture of a search: accuracy against p95, the budget, and who was dropped where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import LogLocator, NullFormatter

from distill.pages import svg
from distill.statistics.metrics import Interval

BUDGET, DROPPED, RACING, REFUSED, WINNER = "#b3261e", "#8fb3d4", "#1f6fb4", "#b6bac1", "#1a7f4b"
HUMANS, FRONT = "#5a7d2a", "#5b616b"
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
        in_full: predicted, or what it came to; None for what was never trained.
        is_reached: whether `in_full` is what it came to.
        is_winner: drawn larger.
    """

    label: str
    p95_ms: float
    colour: str
    measured: float | None = None
    interval: Interval | None = None
    in_full: float | None = None
    is_reached: bool = False
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
        bottom, top = _range(trained, [accuracy for accuracy, _ in lines.values()])
        shelf = bottom - 0.07 * (top - bottom)  # where those lie that were never trained
        axes.set_xscale("log")
        for dot in dots:
            if dot.measured is None:
                axes.plot(dot.p95_ms, shelf, "x", color=dot.colour, markersize=6, zorder=2)
            else:
                _draw_dot(axes, dot, bottom)
        front = _front([dot for dot in trained if dot.colour != DROPPED])
        heights = [max(bottom, 100 * _height(dot)) for dot in front]
        axes.plot([d.p95_ms for d in front], heights, color=FRONT, linewidth=1, zorder=1)
        for accuracy, colour in lines.values():
            axes.axhline(100 * accuracy, color=colour, linestyle="--", linewidth=1.1, zorder=1)
        axes.set_ylim(shelf - 0.07 * (top - bottom), top + 0.05 * (top - bottom))
        _limit(axes, [dot.p95_ms for dot in dots], limit_ms)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("p95 latency of a single call, untrained (ms)")
        axes.set_ylabel("accuracy on validation (%)")
        _name_lines(axes, lines)
        _legend(canvas, axes, legend, with_front=bool(front))
        spots = [shelf if d.measured is None else max(bottom, 100 * _height(d)) for d in dots]
        _place_labels(canvas, axes, dots, spots)

    return svg(draw, width=9, height=5, title="Accuracy of each candidate against its p95 latency")


def _range(trained: Sequence[Dot], lines: Sequence[float]) -> tuple[float, float]:
    """Choose the accuracies to show, in percent: around the lines, not down to what has failed."""
    heights = [100 * y for d in trained for y in (d.measured, d.in_full) if y is not None]
    known = [100 * accuracy for accuracy in lines]
    top = max(heights + known, default=100.0)
    lowest = min(heights + known, default=0.0)
    if known:
        lowest = max(lowest, min(known) - 1.2 * max(1.0, top - min(known)))
    return min(lowest, top - 1.0), top


def _limit(axes: Any, latencies: Sequence[float], limit_ms: float | None) -> None:
    """Draw the budget's limit on p95, or say that it is far off."""
    left, right = min(latencies) / 1.25, max(latencies) * 1.25
    if limit_ms is not None and left < limit_ms < 4 * right:
        right = max(right, 1.15 * limit_ms)
        axes.axvline(limit_ms, color=BUDGET, linestyle=":", zorder=1)
        place, text, side = (limit_ms, 1.01), f"p95 budget {limit_ms:g} ms", "center"
    elif limit_ms is not None:
        place = (right, 1.01) if limit_ms > right else (left, 1.01)
        text = f"p95 budget {limit_ms:g} ms, far {'right' if limit_ms > right else 'left'}"
        side = "right" if limit_ms > right else "left"
    axes.set_xlim(left, right)
    if limit_ms is not None:
        where = ("data", "axes fraction")
        axes.annotate(text, place, xycoords=where, ha=side, color=BUDGET, fontsize=9)


def _height(dot: Dot) -> float:
    return dot.in_full if dot.in_full is not None else dot.measured or 0.0


def _draw_dot(axes: Any, dot: Dot, bottom: float) -> None:
    assert dot.measured is not None
    x, y, height = dot.p95_ms, max(bottom, 100 * dot.measured), max(bottom, 100 * _height(dot))
    if dot.interval is not None:
        ends = [max(bottom, 100 * end) for end in dot.interval]
        axes.plot([x, x], ends, color=dot.colour, linewidth=1, alpha=0.45)
    axes.plot(x, y, "v" if y == bottom else "o", color=dot.colour, markersize=4, zorder=3)
    if dot.in_full is None:
        return
    axes.plot([x, x], [y, height], color=dot.colour, linewidth=1)
    shape, size = ("*", 11) if dot.is_winner else ("v" if height == bottom else "o", 7)
    face = dot.colour if dot.is_reached else "white"
    ring = {"color": dot.colour, "markerfacecolor": face, "markersize": size}
    axes.plot(x, height, shape, zorder=4, **ring)


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


def _legend(canvas: Any, axes: Any, legend: Mapping[str, str], *, with_front: bool) -> None:
    handles = []
    for colour, meaning in legend.items():
        marker = {REFUSED: "x", WINNER: "*"}.get(colour, "o")
        handles += axes.plot([], [], marker, color=colour, label=meaning)
    if with_front:
        handles += axes.plot([], [], "-", color=FRONT, linewidth=1, label="front")
    canvas.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9)


def _place_labels(canvas: Any, axes: Any, dots: Sequence[Dot], heights: Sequence[float]) -> None:
    """Put each label where it covers no dot and no other label, as far as there is such a place."""
    canvas.draw_without_rendering()
    scale, frame = canvas.dpi / 72, axes.bbox.extents
    points = list(zip((dot.p95_ms for dot in dots), heights, strict=True))
    spots = [axes.transData.transform(point) for point in points]
    taken = [(x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale) for x, y in spots]
    for i in sorted(range(len(dots)), key=lambda i: not dots[i].is_winner):
        dot, (x, y) = dots[i], spots[i]
        width, height = 5.2 * len(dot.label) * scale, 9 * scale
        boxes = []
        for dx, dy in _OFFSETS:
            left = x + dx * scale - (width if dx < 0 else 0)
            lower = y + dy * scale - height / 4
            boxes.append((left, lower, left + width, lower + height))
        inside = [width * height - _overlap(box, tuple(frame)) for box in boxes]
        costs = [
            outside + sum(_overlap(box, other) for other in taken)
            for box, outside in zip(boxes, inside, strict=True)
        ]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        axes.annotate(
            dot.label,
            points[i],
            xytext=_OFFSETS[best],
            textcoords="offset points",
            ha="right" if _OFFSETS[best][0] < 0 else "left",
            fontsize=8,
            color=dot.colour,
            fontweight="bold" if dot.is_winner else None,
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
