"""`monitor`: is the model in production still what it was when it went there?"""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.errors import UsageError, UserError
from distill.files import from_json, read_json, to_json, write_json, write_text
from distill.production.logged_inputs import stacked
from distill.production.monitoring.observation import DAY, Ask, observe
from distill.production.monitoring.page import BADGES, headline, page
from distill.production.monitoring.report import Report, report
from distill.production.monitoring.triggers import Rules
from distill.production.monitoring.world import World, open_world
from distill.production.prediction_log.connection import Engine, open_log
from distill.production.prediction_log.observed import served, span
from distill.production.prediction_log.scope import Scope
from distill.production.registry.place import fetch
from distill.production.teacher_answers import TeacherAnswers, answers_of, read_answers
from distill.verbs.artefacts import ARTEFACTS
from distill.verbs.registry import registry_place
from distill.verbs.workspace import plain

COLOURS = {"fail": "red", "inconclusive": "yellow", "pass": "green"}
VERDICTS = {"retrain": "fail", "investigate": "inconclusive", None: "pass"}


def run(cfg: DictConfig) -> dict[str, Any]:
    """Look and tell; exit with 3 to have it trained again, and with 4 to have somebody look."""
    rules = from_json(Rules, plain(cfg.rules), where="rules")
    _check(cfg)
    root, artefact, name = _model(cfg)
    roles = {file: role for role, file in ARTEFACTS.items()}
    world = open_world(root, artefact, roles.get(artefact, artefact))
    console = Console(stderr=True)
    engine = open_log(cfg.log.url, new=False)
    try:
        until = float(cfg.until or time.time())
        ask, lost = _teacher(cfg, world)
        seen = observe(
            engine,
            world,
            until=until,
            first=_first(engine, world, until),
            window_days=cfg.window_days,
            num_rows=cfg.num_rows,
            num_asked=cfg.num_asked,
            ask=ask,
            lost=lost,
        )
    finally:
        engine.dispose()
    found = report(
        world,
        seen,
        rules,
        rate=cfg.alarm_rate * cfg.every_days / 7,
        window_days=cfg.window_days,
        num_retrainings=_retrainings(cfg, until - rules.budget_days * DAY),
        confidence=cfg.confidence,
    )
    folder = Path(cfg.out)
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "verdict": VERDICTS[found.asks],
        "asks": found.asks,
        "model": name,
        "artefact_sha256": world.artefact_sha256,
        "says": headline(found),
        "page": str(folder / "monitor.html"),
        "found": to_json(found),
    }
    write_json(folder / "monitor.json", document)
    write_text(folder / "monitor.html", page(found, name))
    _show(console, name, found)
    console.print(f"page: {folder / 'monitor.html'}")
    return document


def _check(cfg: DictConfig) -> None:
    for key in ("window_days", "num_rows", "num_asked", "every_days"):
        if not isinstance(cfg[key], int | float) or not cfg[key] > 0:
            raise UsageError(f"Expected `{key}` > 0 but got {cfg[key]!r}.")
    for key in ("alarm_rate", "confidence"):
        if not isinstance(cfg[key], int | float) or not 0 < cfg[key] < 1:
            raise UsageError(f"Expected `{key}` between 0 and 1 but got {cfg[key]!r}.")


def _model(cfg: DictConfig) -> tuple[Path, str, str]:
    """Find the run, or the registry's version, and the file of it that is served."""
    if cfg.run is not None:
        root = Path(cfg.run)
        verdict = root / "verdict.json"
        if not verdict.is_file():
            raise UserError(
                f"Expected {verdict} but it is not there. Name a run folder in which `pipeline` "
                "has ended."
            )
        chosen = read_json(verdict).get("chosen") or {}
        artefact = cfg.artefact or chosen.get("artefact")
        if artefact is None:
            raise UserError(f"Expected a chosen artefact in {verdict}. Name one: `artefact=`.")
        return root, artefact, f"{root.name}/{artefact}"
    place = registry_place(cfg)
    entry = place.champion()
    package = fetch(place, entry.version)
    name = f"{place.model} version {entry.version}"
    return package.root, package.artefact_path.name, name


def _first(engine: Engine, world: World, until: float) -> float:
    """Find the model's first answer; say who else answered where it has none."""
    whole = span(engine)
    if whole is None:
        raise UserError(
            "Expected predictions in the log but it is empty. `serve` writes it; see `log.url=`."
        )
    known = served(engine, Scope(until=until))
    for one in known:
        if one.artefact_sha256 == world.artefact_sha256:
            return one.since
    others = ", ".join(
        f"{one.model}" + (f" version {one.version}" if one.version else "") for one in known[:5]
    )
    raise UserError(
        f"Expected answers of {world.artefact.name} ({world.artefact_sha256[:12]}) in the log but "
        f"they are of {others or 'nobody until then'}. Name the model's own run with `run=`, or "
        "another log with `log.url=`."
    )


def _teacher(cfg: DictConfig, world: World) -> tuple[Ask | None, list[str]]:
    path = None if cfg.teacher.path is None else Path(cfg.teacher.path)
    if path is None:
        own = world.artefact.parent / "teacher.onnx"
        if not own.is_file():
            return None, []
        path = own
    if not path.is_file():
        return None, [f"The teacher's opinion is lost: there is no {path} any more."]
    if path.suffix == ".npz":
        stored = read_answers(path)
        return lambda ids, inputs: stored, []
    table = world.contract.table
    columns = None if table is None else table.columns

    def ask(ids: Sequence[str], inputs: Sequence[bytes]) -> TeacherAnswers:
        return answers_of(path, stacked(inputs, columns), ids)

    return ask, []


def _retrainings(cfg: DictConfig, since: float) -> int:
    """Count the versions that became champion since then, where there is a registry."""
    if cfg.run is not None:
        return 0
    entries = registry_place(cfg).read().entries
    crowned = [e.time for e in entries if e.action == "promote" and e.alias == "champion"]
    return sum(datetime.fromisoformat(moment).timestamp() >= since for moment in crowned)


def _show(console: Console, name: str, found: Report) -> None:
    table = Table(title=name, title_style="bold", box=box.SIMPLE_HEAD)
    for column in ("rule", "", "why"):
        table.add_column(column)
    for one in found.triggers:
        colour = COLOURS[BADGES[one.asks]] if one.fires else "green"
        word = one.asks if one.fires else "quiet"
        held = f" (held: {one.held})" if one.held else ""
        table.add_row(one.name, f"[{colour}]{word}[/{colour}]", escape(one.why + held))
    console.print(table)
    console.print(escape(headline(found)), style="bold")
    for one in found.cannot_know:
        console.print(f"unknown: {escape(one)}", style="dim")
