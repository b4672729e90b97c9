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

from distill.errors import UserError
from distill.files import from_json, read_json, to_json, write_json, write_text
from distill.production.logged_inputs import stacked
from distill.production.monitoring.observation import (
    Ask,
    lost_teacher,
    observe,
    sampled,
    with_inputs,
)
from distill.production.monitoring.page import (
    BADGES,
    advice,
    headline,
    page,
    simulated_headline,
    simulated_page,
)
from distill.production.monitoring.report import Report, report
from distill.production.monitoring.simulation import Plan, simulate
from distill.production.monitoring.streams import stream_of
from distill.production.monitoring.triggers import Rules
from distill.production.monitoring.world import World, open_world
from distill.production.prediction_log.connection import Engine, open_log
from distill.production.prediction_log.observed import count, first_answer, served, span
from distill.production.prediction_log.scope import DAY, Scope
from distill.production.registry.place import fetch
from distill.production.teacher_answers import TeacherAnswers, answers_of, read_answers
from distill.verbs.exporting.artefacts import ARTEFACTS
from distill.verbs.production.registry import registry_place
from distill.verbs.run.numbers import COUNT, POSITIVE, Number, check_numbers
from distill.verbs.run.summary import COLOURS
from distill.verbs.run.workspace import plain

AHEAD_S = 60.0  # by which clocks of two machines differ anyway
SHARE = Number(above=0, below=1)
NUMBERS = {
    "until": Number(above=0, is_optional=True),
    "window_days": POSITIVE,
    "every_days": POSITIVE,
    "num_rows": COUNT,
    "num_labels": COUNT,
    "num_asked": COUNT,
    "max_rows": COUNT,
    "alarm_rate": SHARE,
    "confidence": SHARE,
    "rules.max_drop": Number(least=0),
    "rules.max_age_days": Number(above=0, is_optional=True),
    "rules.min_new_labels": Number(is_whole=True, least=1, is_optional=True),
    "rules.max_skew": Number(least=0, is_optional=True),
    "rules.cooldown_days": Number(least=0),
    "rules.max_retrainings": Number(is_whole=True, least=0, is_optional=True),
    "rules.budget_days": Number(least=0),
    "plan.first_days": COUNT,
    "plan.window_days": COUNT,
    "plan.every_days": COUNT,
    "plan.max_drop": Number(least=0),
    "plan.audit_share": Number(above=0, most=1),
    "plan.labels": COUNT,
    "plan.cooldown_days": COUNT,
    "plan.alarm_rate": SHARE,
    "plan.seed": Number(is_whole=True, least=0),
}


def run(cfg: DictConfig) -> dict[str, Any]:
    """Look, or live through the log under each policy."""
    return _simulate(cfg) if cfg.action == "simulate" else _check_now(cfg)


def _simulate(cfg: DictConfig) -> dict[str, Any]:
    check_numbers(cfg, NUMBERS)
    plan = from_json(Plan, plain(cfg.plan), where="plan")
    world, name = _world(cfg)
    if not world.tells_classes:
        raise UserError(
            f"Expected a model of classes to live through the log but {world.artefact} is one of "
            f"{world.contract.asks.kind.replace('_', ' ')}: the stand-in tells classes alone. Run "
            "`monitor` without `simulate`."
        )
    engine = open_log(cfg.log.url, new=False)
    try:
        until = float(cfg.until or time.time())
        first = _first(engine, world, until)
        whole, share = sampled(engine, world, Scope(since=first, until=until), cfg.max_rows)
        rows, inputs = with_inputs(engine, whole)
    finally:
        engine.dispose()
    ask, lost = _teacher(cfg, world)
    teacher = None
    if ask is not None and inputs:
        try:
            teacher = ask(list(inputs), list(inputs.values()))
        except (UserError, ValueError) as error:
            lost = [*lost, lost_teacher(error)]
    stream = stream_of(world, rows, inputs, teacher, first)
    outcomes = simulate(stream, plan)
    folder = Path(cfg.out)
    document = {
        "model": name,
        "num_rows": len(stream.days),
        "num_labels": round(len(whole) / share),
        "num_days": stream.num_days,
        "says": simulated_headline(outcomes),
        "page": str(folder / "simulate.html"),
        "cannot_know": lost,
        "outcomes": to_json(outcomes),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "simulate.json", document)
    drawn = f"They lived through {document['num_rows']:,} rows"
    if document["num_rows"] < document["num_labels"]:
        drawn += f", drawn at random, of about {document['num_labels']:,} whose truth is known"
    text = simulated_page(
        outcomes, name, first_day=plan.first_days, rows=f"{drawn}.", cannot_know=lost
    )
    write_text(folder / "simulate.html", text)
    console = Console(stderr=True)
    table = Table(title=name, title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("policy")
    for column in ("accuracy", "regret", "trainings", "needed", "labels", "delay"):
        table.add_column(column, justify="right")
    for one in outcomes:
        table.add_row(
            one.policy,
            f"{one.accuracy:.1%}",
            f"{one.regret:.2f}",
            str(len(one.trainings)),
            str(one.num_needed),
            f"{one.labels:,}",
            "" if one.delay_days is None else f"{one.delay_days:.1f} days",
        )
    console.print(table)
    console.print(escape(document["says"]), style="bold")
    console.print(drawn + ".", style="dim")
    console.print(f"page: {document['page']}")
    return document


def _check_now(cfg: DictConfig) -> dict[str, Any]:
    """Look and tell; exit with 3 to have it trained again, and with 4 to have somebody look."""
    check_numbers(cfg, NUMBERS)
    rules = from_json(Rules, plain(cfg.rules), where="rules")
    world, name = _world(cfg)
    console = Console(stderr=True)
    engine = open_log(cfg.log.url, new=False)
    try:
        until = float(cfg.until or time.time())
        ask, lost = _teacher(cfg, world)
        ahead = 0 if cfg.until else count(engine, Scope(since=until + AHEAD_S))
        if ahead:
            lost = [*lost, f"What {ahead:,} rows of a time to come say: a clock is wrong, here or "
                    "where the service runs."]  # fmt: skip
        seen = observe(
            engine,
            world,
            until=until,
            first=_first(engine, world, until),
            window_days=cfg.window_days,
            num_rows=cfg.num_rows,
            num_labels=cfg.num_labels,
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
        "verdict": BADGES[found.asks],
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


def _world(cfg: DictConfig) -> tuple[World, str]:
    root, artefact, name = _model(cfg)
    roles = {file: role for role, file in ARTEFACTS.items()}
    return open_world(root, artefact, roles.get(artefact, artefact)), name


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
    first = first_answer(engine, until, world.artefact_sha256)
    if first is not None:
        return first
    others = ", ".join(
        f"{one.model}" + (f" version {one.version}" if one.version else "")
        for one in served(engine, Scope(until=until))[:5]
    )
    raise UserError(
        f"Expected answers of {world.artefact.name} ({world.artefact_sha256[:12]}) in the log but "
        f"they are of {others or 'nobody until then'}. Name the model's own run with `run=`, or "
        "another log with `log.url=`."
    )


def _teacher(cfg: DictConfig, world: World) -> tuple[Ask | None, list[str]]:
    path = None if cfg.teacher.path is None else Path(cfg.teacher.path)
    if not world.tells_classes:
        return None, []
    if path is None:
        own = world.artefact.parent / "teacher.onnx"
        if not own.is_file():
            return None, []
        path = own
    if not path.is_file():
        return None, [f"The teacher's opinion is lost: there is no {path} any more."]
    classes = world.contract.classes
    if path.suffix == ".npz":
        stored = read_answers(path).checked(classes, f"the teacher {path}")
        return lambda ids, inputs: stored, []
    table = world.contract.table
    columns = None if table is None else table.columns

    def ask(ids: Sequence[str], inputs: Sequence[bytes]) -> TeacherAnswers:
        answers = answers_of(path, stacked(inputs, columns), ids)
        return answers.checked(classes, f"the teacher {path}")

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
        held = f" (held {one.held})" if one.held else ""
        table.add_row(one.name, f"[{colour}]{word}[/{colour}]", escape(one.why + held))
    console.print(table)
    console.print(escape(headline(found)), style="bold")
    console.print(escape(advice(found)))
    for one in found.cannot_know:
        console.print(f"unknown: {escape(one)}", style="dim")
