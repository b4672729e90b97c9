"""`serve`: a model over HTTP, until SIGINT or SIGTERM."""

import logging
import os
from contextlib import closing
from pathlib import Path
from typing import Any

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
from distill.production.serving.guard import Limits
from distill.production.serving.log import KeptLog, Log, MemoryLog
from distill.production.serving.recording import Recorder
from distill.production.serving.server import Listening, make_server, open_socket, serve, url_of
from distill.production.serving.service import Service
from distill.production.serving.telemetry import Telemetry
from distill.verbs.registry import registry_place
from distill.verbs.trials import make_trials
from distill.verbs.workspace import plain

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Serve until told to stop; then say what was done."""
    listening = Listening(host=cfg.host, port=cfg.port, read_timeout_s=cfg.read_timeout_s)
    limits = from_json(Limits, plain(cfg.limits), where="limits")
    telemetry = Telemetry()
    loading = Loading(
        num_threads=cfg.num_threads,
        batching=from_json(Batching, plain(cfg.batch), where="batch"),
        on_batch=telemetry.on_batch,
    )
    _check(cfg)
    with open_socket(listening) as bound, closing(_log(cfg)) as predictions:
        catalogue = Catalogue.open(_source(cfg), loading)
        recorder, token = Recorder(log=predictions), os.environ.get(ADMIN_VARIABLE)
        trials = make_trials(cfg, catalogue, recorder, token)
        service = Service(
            catalogue=catalogue,
            recorder=recorder,
            telemetry=telemetry,
            router=trials.router,
            deadline_ms=cfg.deadline_ms,
            admin_token=token,
            beside=trials.beside,
        )
        url = url_of(bound)
        server = make_server(make_application(service, limits, trials.doors), listening)
        serve(server, bound, lambda: log.info("%s answers at %s", catalogue.current, url))
        trials.close()
    current = catalogue.current
    return {
        "url": url,
        "model": current.model,
        "version": current.version,
        "artefact_sha256": current.artefact_sha256,
        "num_answered": telemetry.num_answered,
        "errors": telemetry.errors,
        "log_problem": predictions.problem(),
    }


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


def _check(cfg: DictConfig) -> None:
    counts = (
        "num_threads",
        "batch.max_size",
        "batch.max_waiting",
        "limits.max_body_bytes",
        "limits.max_held_bytes",
    )
    for name in ("deadline_ms", "read_timeout_s", *counts):
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, int | float) or not value > 0:
            raise UsageError(f"Expected `{name}` > 0 but got {value!r}.")
