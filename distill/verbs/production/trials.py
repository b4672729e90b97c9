"""What `serve` tries beside the champion: from a configuration to a router and what leads it."""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from distill.files import from_json
from distill.production.experiment.course import Course
from distill.production.experiment.policy import Policy, Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.connection import open_log
from distill.production.registry import rollout
from distill.production.registry.ledger import Entry
from distill.production.registry.place import Place, registered
from distill.production.routing.conducting import Conducting
from distill.production.routing.conductor import Conductor
from distill.production.routing.doors import doors
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.routing.settling import Due, Told, Write
from distill.production.serving.catalogue import (
    Catalogue,
    ChallengerSource,
    FileSource,
    Source,
    artefact_of,
)
from distill.production.serving.editions import Artefact, artefact_at
from distill.production.serving.exchange import Router, SingleRouter
from distill.production.serving.recording import Recorder
from distill.verbs.production.registry import registry_place
from distill.verbs.production.serve_settings import REGISTRY
from distill.verbs.run.workspace import plain

log = logging.getLogger(__name__)

Beside = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What a service gets for them.

    Attributes:
        router: decides who answers.
        beside: what leads experiments while the service is up.
        doors: adds their routes.
        close: lets the log go.
    """

    router: Router
    beside: tuple[Beside, ...] = ()
    doors: Callable[[Any], None] = lambda application: None
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for.

    Attributes:
        policy: the rules.
        conducting: the rest.
        challengers: say who is tried; None for nobody.
        place: the registry; None of plain files.
    """

    policy: Policy
    conducting: Conducting
    challengers: Source | None
    place: Place | None


def wanted_trials(cfg: DictConfig) -> Wanted:
    """Read what is asked for, and say where that is nobody though a rollout was asked for.

    Raises:
        UsageError: rules or limits make no sense.
        UserError: the challenger's file is not there.
    """
    place = registry_place(cfg) if cfg.artefact is None else None
    policy = from_json(Policy, plain(cfg.rollout), where="rollout")
    challengers = _challengers(cfg, place)
    if policy.steps and (cfg.log.url is None or challengers is None):
        log.warning(
            "Nobody is tried beside the model: %s.",
            "there is no log to decide from; name one with `log.url=`"
            if cfg.log.url is None
            else "there is no challenger; name one with `challenger=new.onnx`",
        )
    return Wanted(
        policy=policy,
        conducting=from_json(Conducting, plain(cfg.trial), where="trial"),
        challengers=None if cfg.log.url is None else challengers,
        place=place,
    )


def make_trials(
    cfg: DictConfig, wanted: Wanted, catalogue: Catalogue, recorder: Recorder, token: str | None
) -> Trials:
    """Set up what is tried; without a challenger, or without a log, nothing is.

    Raises:
        UserError: the log does not open.
    """
    if wanted.challengers is None:
        return Trials(router=SingleRouter())
    engine = open_log(cfg.log.url, sync=cfg.log.sync)  # of its own: readers never starve the writer
    router, place = TrialRouter(recorder, holdout=wanted.conducting.holdout), wanted.place
    conductor = Conductor(
        router=router,
        mover=Mover(engine=engine),
        catalogue=catalogue,
        challengers=wanted.challengers,
        policy=wanted.policy,
        conducting=wanted.conducting,
        replaced=_replaced(place),
        old=_old(place),
        due=_due(place),
        told=_told(place),
        unproven=_unproven(place),
    )
    return Trials(
        router=router,
        beside=(conductor.run,),
        doors=doors(engine, router, token),
        close=engine.dispose,
    )


def _challengers(cfg: DictConfig, place: Place | None) -> Source | None:
    if cfg.challenger is None:
        return None
    if cfg.challenger != REGISTRY:
        name = cfg.name or (None if place is None else place.model)
        return FileSource(artefact=artefact_at(Path(cfg.challenger), name))
    return None if place is None else ChallengerSource(place=place)


def _told(place: Place | None) -> Told:
    """Write an experiment's moves into the registry, where both come from there; but see `_due`."""

    def note(course: Course) -> None:
        challenger = course.setting.challenger
        if place is None or challenger.version is None:
            return
        known = place.read().state.registered.get(challenger.version)
        if known is None or known.artefact_sha256 != challenger.artefact_sha256:
            return  # the log is about another registry
        steps = [
            (_reason(step.state), findings)
            for step, findings in zip(course.steps, course.findings, strict=True)
            if not step.state.stage.changes_champion
        ]
        rollout.note(place, course.identity, challenger.version, steps)

    return note


def _due(place: Place | None) -> Due:
    """Find what an experiment has decided about the champion that the registry does not have."""

    def write(course: Course) -> Write | None:
        promotion, state = _promotion(course), course.state
        if place is None or promotion is None:
            return None
        back = _reason(state) if state.stage is Stage.ROLLED_BACK else None
        return rollout.pending(place, promotion, course.findings[-1], back=back)

    return write


def _replaced(place: Place | None) -> Callable[[Course], Entry | None]:
    """Ask the registry what has put another in the place of a champion."""

    def entry(course: Course) -> Entry | None:
        promotion = _promotion(course)
        return None if place is None or promotion is None else rollout.replaced(place, promotion)

    return entry


def _promotion(course: Course) -> rollout.Promotion | None:
    state, setting = course.promotion, course.setting
    champion, challenger = setting.champion, setting.challenger
    if state is None or challenger.version is None:
        return None
    return rollout.Promotion(
        experiment=course.identity,
        version=challenger.version,
        artefact_sha256=challenger.artefact_sha256,
        former_sha256=champion.artefact_sha256,
        since=state.since,
        reason=_reason(state),
    )


def _reason(state: State) -> str:
    return f"{state.name}: {state.why}"


def _old(place: Place | None) -> Callable[[Setting], Artefact | None]:
    """Get the champion before from the registry."""

    def artefact(setting: Setting) -> Artefact | None:
        version = setting.champion.version
        if place is None or version is None:
            return None
        return artefact_of(place, registered(place.read(), version))

    return artefact


def _unproven(place: Place | None) -> Callable[[Setting], str | None]:
    """Ask the registry why an experiment may not promote, however good its challenger is."""

    def why(setting: Setting) -> str | None:
        version = setting.challenger.version
        return None if place is None or version is None else rollout.unproven(place, version)

    return why
