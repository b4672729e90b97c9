"""Pages and pictures: Jinja2 templates (autoescaped) and matplotlib figures as inline SVG.

A page is one file that opens offline: no script, no font and no picture from elsewhere. Knows
nothing of what it shows.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render `distill/templates/<template>`; HTML is autoescaped, Markdown is not HTML."""
    environment = Environment(
        loader=PackageLoader("distill", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, percent_interval=percent_interval, figure=figure, size=size
    )
    return environment.get_template(template).render(values)


def svg(draw: Callable[[Any], None], *, width: float, height: float, title: str) -> Markup:
    """Draw a matplotlib figure and return it as inline SVG with a title for screen readers.

    Args:
        draw: called with the figure.
        width: in inches.
        height: in inches.
        title: what the picture shows.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "text.parse_math": False,  # a name with dollars in it is a name
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#8a8f98",
        "axes.labelcolor": "#3c4149",
        "xtick.color": "#5b616b",
        "ytick.color": "#5b616b",
        "axes.grid": True,
        "grid.color": "#e6e8eb",
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    buffer = io.StringIO()
    with rc_context(style):
        canvas = Figure(figsize=(width, height), layout="constrained")
        draw(canvas)
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text, count=1)
    label = Markup.escape(title)  # may hold backslashes, which a replacement text would read
    return Markup(re.sub(r"<svg[^>]*>", lambda m: f"{m[0]}<title>{label}</title>", text, count=1))


def percent(value: float | None, digits: int = 2) -> str:
    """Format a fraction as a percentage."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def percent_interval(interval: Sequence[float | None] | None, digits: int = 2) -> str:
    """Format an interval of fractions; one without bounds is null in JSON."""
    if interval is None:
        return ""
    known = [end for end in interval if end is not None and math.isfinite(end)]
    if len(known) < len(interval):
        return "unknown"
    return f"{100 * known[0]:.{digits}f} to {100 * known[1]:.{digits}f} %"


def figure(value: float | None) -> str:
    """Format a number to three significant digits, whole above a thousand."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(num_bytes: float | None) -> str:
    """Format bytes in decimal units."""
    if num_bytes is None:
        return ""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes:.0f} B"
