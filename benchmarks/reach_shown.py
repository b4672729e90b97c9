"""The README's table and picture, from what `reach.py` measured."""

from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import LogLocator, NullFormatter

from distill.pages import percent, percent_interval, size, svg

NAMES = {
    "teacher": "teacher",
    "control": "control",
    "student": "student",
    "student_int8": "student int8",
}
TITLES = {"digits": ("Digits", "tiny_cnn"), "cifar10": ("CIFAR-10", "resnet8")}
COLOURS = dict(zip(NAMES, ("#5b616b", "#c77d1a", "#1f6fb4", "#1a7f4b"), strict=True))


def write(document: dict, folder: Path) -> None:
    """Write `reach.md` and `reach.svg`."""
    runs = [row for row in document["rows"] if "models" in row]
    (folder / "reach.md").write_text("\n".join(map(table, runs)))
    (folder / "reach.svg").write_text(picture(runs))


def table(run: dict) -> str:
    """Write a run's models as a Markdown table, and whether distillation helped."""
    title, student = TITLES[run["subject"]]
    lines = [
        f"**{title}** ({student}, {run['parameters']:,} parameters; whole run "
        f"{run['seconds']:.0f} s; verdict {run['verdict']}):",
        "",
        "| model | test accuracy | 95 % interval | p95 latency, 1 thread | size |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    models = run["models"]
    lines.append(_row(f"baseline ({models['baseline']['name']})", models["baseline"]))
    lines += [_row(name, models[key]) for key, name in NAMES.items() if key in models]
    return "\n".join([*lines, "", f"Did distillation help? {run['did_distillation_help']}", ""])


def _row(name: str, model: dict[str, Any]) -> str:
    p95 = f"{model['p95_latency_ms']:.4f} ms" if model.get("p95_latency_ms") else ""
    bytes_ = size(model["size_bytes"]) if model.get("size_bytes") else ""
    interval = percent_interval(model["accuracy_interval"])
    return f"| {name} | {percent(model['accuracy'])} | {interval} | {p95} | {bytes_} |"


def picture(runs: list[dict]) -> Markup:
    """Draw accuracy against p95, a panel for each run; the area of a dot is the file's size."""

    def draw(canvas: Any) -> None:
        panels = canvas.subplots(1, len(runs), squeeze=False)[0]
        for panel, run in zip(panels, runs, strict=True):
            _draw(panel, run)
        panels[0].set_ylabel("test accuracy (%)")

    title = "Accuracy against latency: teacher, control, student and int8 student"
    drawn = svg(draw, width=4.6 * len(runs), height=3.6, title=title)
    return drawn.replace("<svg ", Markup('<svg style="background: white" '), 1)


def _draw(panel: Any, run: dict) -> None:
    largest = max(model.get("size_bytes") or 0 for model in run["models"].values())
    for key, colour in COLOURS.items():
        model = run["models"].get(key)
        if model is None:
            continue
        x, y = model["p95_latency_ms"], 100 * model["accuracy"]
        low, high = (100 * bound for bound in model["accuracy_interval"])
        panel.errorbar(x, y, yerr=[[y - low], [high - y]], color=colour, linewidth=1, capsize=2)
        panel.scatter(x, y, s=20 + 400 * model["size_bytes"] / largest, color=colour, alpha=0.75)
        aside = {"xytext": (9, -12 if key == "student_int8" else 7)}
        if key == "student_int8" and x < run["models"]["student"]["p95_latency_ms"]:
            aside |= {"xytext": (-9, -12), "ha": "right"}  # the others stand to its right
        panel.annotate(NAMES[key], (x, y), textcoords="offset points", color=colour, **aside)
    panel.set_xscale("log")
    panel.margins(x=0.5, y=0.15)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("p95 of a single call, 1 thread (ms)")
    baseline = run["models"]["baseline"]
    title = (
        f"{TITLES[run['subject']][0]}: {baseline['name']} has {percent(baseline['accuracy'], 1)}"
    )
    panel.set_title(title, fontsize=10)
