"""From a configuration to a service: what every process that serves puts together."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError
from distill.files import from_json
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.privacy import Privacy
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.serving.application import ADMIN_VARIABLE, make_application
from distill.production.serving.batcher import Batching
from distill.production.serving.catalogue import Catalogue, FileSource, RegistrySource, Source
from distill.production.serving.editions import Loading, artefact_at
from distill.production.serving.guard import Guard, Limits
from distill.production.serving.log import KeptLog, Log, MemoryLog
from distill.production.serving.peers import Peers
from distill.production.serving.recording import Recorder
from distill.production.serving.service import Service
from distill.production.serving.telemetry import Telemetry
from distill.verbs.registry import registry_place
from distill.verbs.trials import REGISTRY, make_trials
from distill.verbs.workspace import plain

ENGINES = ("local", "ray")


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
    check(cfg)
    limits = from_json(Limits, plain(cfg.limits), where="limits")
    telemetry = Telemetry()
    loading = Loading(
        num_threads=cfg.num_threads,
        batching=from_json(Batching, plain(cfg.batch), where="batch"),
        on_batch=telemetry.on_batch,
    )
    with closing(_log(cfg)) as predictions:
        catalogue = Catalogue.open(_source(cfg), loading)
        recorder, token = Recorder(log=predictions), os.environ.get(ADMIN_VARIABLE)
        with closing(make_trials(cfg, catalogue, recorder, token)) as trials:
            service = Service(
                catalogue=catalogue,
                recorder=recorder,
                telemetry=telemetry,
                router=trials.router,
                deadline_ms=cfg.deadline_ms,
                admin_token=token,
                peers=peers or Peers(),
                beside=trials.beside,
            )
            application = make_application(service, limits, trials.doors)
            yield Opened(service=service, application=application)


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


def check(cfg: DictConfig) -> None:
    """Refuse numbers that make no sense.

    Raises:
        UsageError: there is one.
    """
    counts = (
        "num_threads",
        "workers",
        "batch.max_size",
        "batch.max_waiting",
        "limits.max_body_bytes",
        "limits.max_held_bytes",
    )
    for name in ("deadline_ms", "read_timeout_s", *counts):
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, int | float) or not value > 0:
            raise UsageError(f"Expected `{name}` > 0 but got {value!r}.")
    if cfg.engine not in ENGINES:
        raise UsageError(f"Expected `engine` of {', '.join(ENGINES)} but got {cfg.engine!r}.")
    if cfg.workers > 1 and cfg.log.url is None:
        raise UsageError(
            "Expected `log.url=` with several workers: feedback may reach another one than the "
            "prediction did."
        )
    if cfg.engine == "ray" and not (cfg.port and str(cfg.log.url).startswith("postgresql")):
        raise UsageError(
            "Expected `log.url=postgresql://...` and a `port` with `engine=ray`: its replicas may "
            "be on several machines, where one file is not enough."
        )


def whole_paths(cfg: DictConfig) -> DictConfig:
    """Name files so that processes in other folders find them."""
    cfg = cfg.copy()
    cfg.registry.folder = str(Path(cfg.registry.folder).resolve())
    for name in ("artefact", "challenger"):
        if cfg[name] not in (None, REGISTRY):
            cfg[name] = str(Path(cfg[name]).resolve())
    return cfg
