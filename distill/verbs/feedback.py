"""`feedback`: what people label next, what they said, and the dataset that comes of it."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from distill.audit import MIN_ROWS, share_to_keep
from distill.dataset_versions import MANIFEST, counts, write_version
from distill.errors import UsageError, nearest
from distill.files import from_json, to_json
from distill.production.feedback.collecting import collect
from distill.production.feedback.exchange import export_tasks, import_files
from distill.production.feedback.model import Model, open_model
from distill.production.feedback.opinions import agreement
from distill.production.feedback.selecting import Asking, select
from distill.production.feedback.selection import Limits
from distill.production.feedback.story import audit_facts, notes, people_facts, teacher_facts
from distill.production.feedback.survey import Looking, held_share, survey
from distill.production.feedback.teacher import Teacher, open_teacher
from distill.production.feedback.telling import (
    collected,
    selected,
    share_told,
    to_label,
    usable_audit,
)
from distill.production.feedback.tiers import counted
from distill.production.prediction_log.annotations import answers, progress
from distill.production.prediction_log.connection import Engine, open_log
from distill.production.registry.place import artefacts_alike
from distill.production.serving.editions import artefact_at
from distill.run_folder import versions
from distill.verbs.production.registry import champion_path, registry_place
from distill.verbs.run.numbers import Number, check_numbers
from distill.verbs.run.workspace import plain


def run(cfg: DictConfig) -> dict[str, Any]:
    """Do one step of the loop."""
    steps = {"select": _select, "export": _export, "import": _import, "collect": _collect}
    if cfg.action not in steps:
        raise UsageError(f"Unknown action `{cfg.action}`. {nearest(str(cfg.action), steps)}")
    with _opened(cfg) as (engine, model):
        result = steps[cfg.action](cfg, engine, model)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for line in result.get("says", ()):
        console.print(line)
    for note in result.get("notes", ()):
        console.print(f"note: {note}")
    return {"action": cfg.action, "model": str(model.path), "model_sha256": model.sha256, **result}


def _select(cfg: DictConfig, engine: Engine, model: Model) -> dict[str, Any]:
    looking, limits = _looking(cfg), from_json(Limits, plain(cfg.limits), where="limits")
    teacher = _teacher(cfg.teacher.path, cfg)
    strategy = instantiate(cfg.strategy)
    seen = survey(engine, model, teacher, looking)
    asking = Asking(
        strategy=strategy,
        name=strategy.func.__name__,
        limits=limits,
        overlap=looking.overlap,
        costs=plain(cfg.costs),
        members=[_teacher(path, cfg) for path in cfg.teacher.members],
        seed=cfg.seed,
    )
    done = select(engine, seen, asking)
    told = selected(seen, done, strategy=asking.name, budget=limits.budget)
    return {
        "says": [*told, _where(cfg, engine, model)],
        "strategy": asking.name,
        "has_embedding": done.has_embedding,
        "num_predictions": len(seen.answers),
        "num_candidates": done.num_candidates,
        "num_selected": done.num_new,
        "num_duplicates": done.choice.num_duplicates,
        "num_over_unit": done.choice.num_over_unit,
        "num_audit_drawn": seen.num_drawn,
        "audit": audit_facts(seen, looking),
        "people": people_facts(seen),
        "teacher": teacher_facts(seen, teacher),
        "tiers": counted(seen.tiers),
        "notes": [
            *share_told(seen),
            *notes(seen, teacher, num_without_input=done.num_without_input),
        ],
    }


def _export(cfg: DictConfig, engine: Engine, model: Model) -> dict[str, Any]:
    done = export_tasks(engine, model, Path(cfg.out))
    hidden = done.num_without_input
    said = [f"{hidden:,} open items are not in the tasks: their input was not kept."]
    return {**to_json(done), "notes": said if hidden else []}


def _import(cfg: DictConfig, engine: Engine, model: Model) -> dict[str, Any]:
    done = import_files(engine, model, [Path(path) for path in cfg.files])
    people = agreement(answers(engine, model.classes_sha256), len(model.classes))
    said = []
    if done.num_gone:
        said.append(f"{done.num_gone:,} answers are to items that are not in the queue, or gone.")
    if done.adjudicate:
        said.append(f"{done.adjudicate:,} items wait for another person: those before differ.")
    return {**to_json(done), "agreement": to_json(people), "notes": said}


def _collect(cfg: DictConfig, engine: Engine, model: Model) -> dict[str, Any]:
    check_numbers(cfg, {"max_unlabelled": Number(is_whole=True, least=0)})
    looking, teacher = _looking(cfg), _teacher(cfg.teacher.path, cfg)
    share = share_to_keep(looking.audit_share, held_share(engine))
    looking = dataclasses.replace(looking, audit_share=share)
    if cfg.artefact is None:
        alike = artefacts_alike(registry_place(cfg), model.contract)
        model = dataclasses.replace(model, alike=alike)
    seen = survey(engine, model, teacher, looking)
    done = collect(
        engine,
        seen,
        max_teacher_share=cfg.max_teacher_share,
        max_unlabelled=cfg.max_unlabelled,
    )
    facts = {
        "model": {"path": str(model.path), "sha256": model.sha256},
        "classes": list(model.classes),
        "teacher": teacher_facts(seen, teacher),
        "audit": audit_facts(seen, looking),
        "max_teacher_share": cfg.max_teacher_share,
        "max_unlabelled": cfg.max_unlabelled,
        "num_leaks": done.num_leaks,
        "versions": versions(),
    }
    path, is_new = write_version(Path(cfg.out), done.rows, facts)
    usable = usable_audit(done.rows)
    following = _where(cfg, engine, model)
    if usable >= MIN_ROWS:
        following = f"Next: `distill pipeline experiment=feedback data.version={path}`"
    return {
        "says": [*collected(seen, done, path, is_new=is_new), following],
        "dataset": str(path),
        "manifest": str(path / MANIFEST),
        "is_new": is_new,
        "counts": counts(done.rows),
        "num_audit_usable": usable,
        "num_leaks": done.num_leaks,
        "num_teacher_left_out": done.num_teacher_left_out,
        "audit": facts["audit"],
        "people": people_facts(seen),
        "teacher": facts["teacher"],
        "notes": notes(seen, teacher, num_without_input=done.num_without_input),
    }


@contextmanager
def _opened(cfg: DictConfig) -> Iterator[tuple[Engine, Model]]:
    if cfg.log.url is None:
        raise UsageError("Expected `log.url=`, the prediction log that `serve` writes.")
    path = champion_path(cfg) if cfg.artefact is None else artefact_at(Path(cfg.artefact)).path
    model = open_model(path)
    engine = open_log(cfg.log.url, new=False)
    try:
        yield engine, model
    finally:
        engine.dispose()


def _where(cfg: DictConfig, engine: Engine, model: Model) -> str:
    """Say where people label, and how much waits for them."""
    serve = "distill serve" + ("" if cfg.artefact is None else f" artefact={cfg.artefact}")
    return to_label(progress(engine, model.classes_sha256, "").open_for, serve)


def _looking(cfg: DictConfig) -> Looking:
    return from_json(Looking, plain(cfg.looking), where="looking")


def _teacher(path: str | None, cfg: DictConfig) -> Teacher:
    return open_teacher(None if path is None else Path(path), Path(cfg.out))
