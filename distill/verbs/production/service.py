"""From a configuration to a service: what every process that serves puts together."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from omegaconf import DictConfig

from distill.files import from_json
from distill.production.prediction_log.connection import Engine, open_log
from distill.production.prediction_log.privacy import Privacy
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.serving.application import ADMIN_VARIABLE, make_application
from distill.production.serving.batcher import Batching
from distill.production.serving.catalogue import Catalogue, FileSource, RegistrySource, Source
from distill.production.serving.editions import Loading, artefact_at
from distill.production.serving.guard import Guard, Limits
from distill.production.serving.listening import is_loopback
from distill.production.serving.log import KeptLog, Log, MemoryLog
from distill.production.serving.peers import Peers
from distill.production.serving.recording import Recorder
from distill.production.serving.review import review
from distill.production.serving.service import Service
from distill.production.serving.telemetry import Telemetry
from distill.verbs.production.registry import registry_place
from distill.verbs.production.serve_settings import REGISTRY
from distill.verbs.production.trials import make_trials, wanted_trials
from distill.verbs.run.workspace import plain


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A service, and the application around it."""

    service: Service
    application: Guard


@contextmanager
def opened(cfg: DictConfig, peers: Peers | None = None) -> Iterator[Opened]:
    """Put a service together; closes its log in the end.

    Args:
        cfg: of `serve`.
        peers: other processes of the same service.

    Raises:
        UserError: there is nothing to serve, or it does not load.
    """
    # Who listens here alone is asked by this machine's names alone, by no page that borrows one.
    given = {"guard_reads": is_loopback(cfg.host)} | plain(cfg.limits)
    limits = from_json(Limits, given, where="limits")
    telemetry = Telemetry()
    loading = Loading(
        num_threads=cfg.num_threads,
        batching=from_json(Batching, plain(cfg.batch), where="batch"),
        on_batch=telemetry.on_batch,
    )
    wanted = wanted_trials(cfg)
    catalogue = Catalogue.open(_source(cfg), loading)
    with closing(_log(cfg)) as predictions:  # last: what cannot be served leaves no log behind
        recorder, token = Recorder(log=predictions), os.environ.get(ADMIN_VARIABLE)
        with (
            closing(make_trials(cfg, wanted, catalogue, recorder, token)) as trials,
            _desk_log(cfg) as (engine, why_not),
        ):
            service = Service(
                catalogue=catalogue,
                recorder=recorder,
                telemetry=telemetry,
                router=trials.router,
                deadline_ms=cfg.deadline_ms,
                max_rows=limits.max_rows,
                admin_token=token,
                peers=peers or Peers(),
                beside=trials.beside,
            )
            desk = review(engine, service, why_not)

            def doors(application: FastAPI) -> None:
                trials.doors(application)
                desk(application)

            application = make_application(service, limits, doors)
            yield Opened(service=service, application=application)


@contextmanager
def _desk_log(cfg: DictConfig) -> Iterator[tuple[Engine | None, str]]:
    """Open the log for those who label, or say why nobody does."""
    url, why_not = cfg.log.url, ""
    if url is None:
        why_not = "items are kept in a prediction log, and `log.url=null` has none."
    elif cfg.review is None and not is_loopback(cfg.host):
        why_not = (
            f"it shows logged inputs to whoever reaches {cfg.host}. Set `review=true` where all "
            "who do may see them."
        )
    elif cfg.review is False:
        why_not = "`review=false` turns it off."
    if url is None or why_not:
        yield None, why_not
        return
    engine = open_log(url, sync=cfg.log.sync)  # of its own: people never starve the writer
    try:
        yield engine, ""
    finally:
        engine.dispose()


def _source(cfg: DictConfig) -> Source:
    if cfg.artefact is not None:
        return FileSource(artefact=artefact_at(Path(cfg.artefact), cfg.name))
    return RegistrySource(place=registry_place(cfg))


def _log(cfg: DictConfig) -> Log:
    if cfg.log.url is None:
        return MemoryLog()
    engine = open_log(cfg.log.url, sync=cfg.log.sync)
    options = WriterOptions(
        flush_ms=cfg.log.flush_ms,
        sync=cfg.log.sync,
        privacy=Privacy(inputs=cfg.log.inputs, units=cfg.log.units),
    )
    writer = LogWriter(engine, options)
    return KeptLog(engine=engine, writer=writer, retention_days=cfg.log.retention_days)


def whole_paths(cfg: DictConfig) -> DictConfig:
    """Name files so that processes in other folders find them."""
    cfg = cfg.copy()
    cfg.registry.folder = str(Path(cfg.registry.folder).resolve())
    for name in ("artefact", "challenger"):
        if cfg[name] not in (None, REGISTRY):
            cfg[name] = str(Path(cfg[name]).resolve())
    return cfg
