"""`experiment`: what the prediction log says of a challenger; before, how much it would take."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.files import from_json, to_json, write_json, write_text
from distill.production.experiment.page import page
from distill.production.experiment.plan import Question, plan
from distill.production.experiment.story import document, find, tell
from distill.production.prediction_log.connection import open_log
from distill.verbs.run.summary import COLOURS
from distill.verbs.run.workspace import plain


def run(cfg: DictConfig) -> dict[str, Any]:
    """Decide, or plan."""
    console = Console(stderr=True)
    return _plan(cfg, console) if cfg.action == "plan" else _decide(cfg, console)


def _decide(cfg: DictConfig, console: Console) -> dict[str, Any]:
    engine = open_log(cfg.log.url, new=False)
    try:
        story = tell(engine, find(engine, cfg.experiment_name))
    finally:
        engine.dispose()
    folder = Path(cfg.out)
    decision, told = folder / "decision.json", folder / "experiment.html"
    folder.mkdir(parents=True, exist_ok=True)
    result = {**document(story), "decision": str(decision), "page": str(told)}
    write_json(decision, result)
    write_text(told, page(story))
    table = Table(title=story.setting.experiment, title_style="bold", box=box.SIMPLE_HEAD)
    for column in ("rule", "outcome", "what was seen"):
        table.add_column(column)
    for finding in story.decision.findings:
        colour = COLOURS[finding.outcome]
        table.add_row(finding.rule, f"[{colour}]{finding.outcome}[/{colour}]", escape(finding.note))
    console.print(table)
    console.print(f"[bold]{story.state.name}[/bold]: {escape(result['why'])}")
    console.print(f"decision: {escape(str(decision))}\npage: {escape(str(told))}", soft_wrap=True)
    return result


def _plan(cfg: DictConfig, console: Console) -> dict[str, Any]:
    question = from_json(Question, plain(cfg.plan), where="plan")
    needs = plan(question)
    table = Table(
        title=f"until {question.difference:+.1%} shows at {question.baseline:.1%}",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for column in ("by", "requests", "half of the time", "days", "may be looked at"):
        table.add_column(column, justify="left" if column[0] in "bm" else "right")
    for need in needs:
        table.add_row(
            need.method,
            "never" if need.units is None else f"{need.units:,}",
            "" if need.median_units is None else f"{need.median_units:,}",
            "" if need.days is None else f"{need.days:.1f}",
            need.may_be_looked_at,
        )
    console.print(table)
    return {"question": to_json(question), "needs": to_json(needs)}
