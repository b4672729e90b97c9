"""What `serve` tries beside the champion: from a configuration to a router and what leads it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from distill.errors import UsageError
from distill.files import from_json, to_json
from distill.production.experiment.decision import Decision
from distill.production.experiment.policy import Policy, Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.connection import open_log
from distill.production.registry import rollout
from distill.production.registry.ledger import Entry
from distill.production.registry.place import Place, registered
from distill.production.routing.conductor import Conducting, Conductor
from distill.production.routing.doors import doors
from distill.production.routing.router import TrialRouter
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
from distill.verbs.registry import registry_place
from distill.verbs.workspace import plain

REGISTRY = "registry"
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


def make_trials(
    cfg: DictConfig, catalogue: Catalogue, recorder: Recorder, token: str | None
) -> Trials:
    """Set up what is tried; without a challenger, or without a log, nothing is.

    Raises:
        UsageError: there is a challenger to try, and no log to decide from.
        UserError: the challenger's file is not there.
    """
    place = registry_place(cfg) if cfg.artefact is None else None
    challengers = _challengers(cfg, place)
    if cfg.log.url is None and cfg.challenger not in (None, REGISTRY):
        raise UsageError("Expected `log.url=` with `challenger=`: decisions are made from it.")
    if cfg.log.url is None or challengers is None:
        return Trials(router=SingleRouter())
    conducting = from_json(Conducting, plain(cfg.trial), where="trial")
    engine = open_log(cfg.log.url, sync=cfg.log.sync)  # of its own: readers never starve the writer
    router = TrialRouter(recorder, holdout=conducting.holdout)
    conductor = Conductor(
        router=router,
        engine=engine,
        catalogue=catalogue,
        challengers=challengers,
        policy=from_json(Policy, plain(cfg.rollout), where="rollout"),
        conducting=conducting,
        on_move=_history(place),
        replaced=_replaced(place),
        old=_old(place),
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


def _history(place: Place | None) -> Callable[[Setting, State, Decision | None], None]:
    """Write an experiment's moves into the registry, where both come from there."""

    def note(setting: Setting, state: State, decision: Decision | None) -> None:
        version = setting.challenger.version
        if place is None or version is None:
            return
        reason = f"{state.name}: {state.why}"
        evidence = [] if decision is None else to_json(decision.findings)
        old = setting.champion.version
        if state.stage is Stage.ROLLED_BACK and old is not None:
            rollout.take_back(place, version, old, reason, evidence)
            return
        promotes = state.stage is Stage.PROMOTED
        rollout.note(place, version, reason, evidence, promotes=promotes)

    return note


def _replaced(place: Place | None) -> Callable[[Setting, float], Entry | None]:
    """Ask the registry what has put another in the place of a champion."""

    def entry(setting: Setting, since: float) -> Entry | None:
        version = setting.challenger.version
        if place is None or version is None:
            return None
        return rollout.replaced(place, version, since)

    return entry


def _old(place: Place | None) -> Callable[[Setting], Artefact | None]:
    """Get the champion before from the registry."""

    def artefact(setting: Setting) -> Artefact | None:
        version = setting.champion.version
        if place is None or version is None:
            return None
        return artefact_of(place, registered(place.read(), version))

    return artefact
