"""The processes of `serve`: this one, workers at one socket, or replicas of Ray Serve."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from socket import socket
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill.errors import UserError
from distill.production.fleet.cluster import Replicas
from distill.production.fleet.workers import Line, Workers, end_with_parent
from distill.production.routing import announcer
from distill.production.serving.listening import url_of
from distill.production.serving.overview import latest, snapshot, totals
from distill.production.serving.peers import Board, Peers, Snapshot
from distill.production.serving.server import make_server, serve
from distill.runtime import ModelError
from distill.verbs.production.serve_settings import listening
from distill.verbs.production.service import opened, whole_paths
from distill.verbs.run.ranks import log_to_stderr
from distill.verbs.run.workspace import plain

log = logging.getLogger(__name__)

FIRST = "worker-1"
ENDING_S = 15  # beyond `shutdown_s`: the last rows of the log, the end of a challenger


def answer(cfg: DictConfig, bound: socket) -> dict[str, Any]:
    """Serve at a socket until told to stop; then say what was done."""
    url = url_of(bound)
    if cfg.workers > 1:
        return _by_workers(cfg, bound, url)
    with opened(cfg) as own:
        server = make_server(own.application, listening(cfg))
        current = own.service.catalogue.current
        serve(server, bound, lambda: log.info("%s answers at %s", current, url))
    return _document(url, [snapshot(own.service)])


def _by_workers(cfg: DictConfig, bound: socket, url: str) -> dict[str, Any]:
    bound.listen(2048)  # before anybody accepts
    workers = Workers(
        target=partial(work, plain(cfg), bound),
        num=cfg.workers,
        shutdown_s=listening(cfg).shutdown_s + ENDING_S,
    )
    workers.run(
        lambda: log.info("%s, by %d workers, answers at %s", workers.model, cfg.workers, url)
    )
    restarts = {"num_restarts": workers.num_restarts}
    return _document(url, workers.hub.said()) | {"workers": cfg.workers} | restarts


def work(settings: dict[str, Any], bound: socket, name: str, end: Connection) -> None:
    """Be one of several workers.

    Args:
        settings: the configuration.
        bound: where all accept.
        name: of this one.
        end: of the line to whoever started it.
    """
    log_to_stderr(f"{name}: ")
    if name != FIRST:  # all would say the same
        logging.getLogger(announcer.__name__).setLevel(logging.ERROR)
    end_with_parent()
    cfg, line = OmegaConf.create(settings), Line(end)
    try:
        peers = Peers(name=name, board=line)
        with opened(cfg, peers) as own:
            current = own.service.catalogue.current
            server = make_server(own.application, listening(cfg))
            serve(server, bound, lambda: line.ready(str(current)))
        asyncio.run(peers.tell(snapshot(own.service)))  # what the log lost in the end
    except (UserError, ModelError) as error:
        line.failed(error)


def by_replicas(cfg: DictConfig) -> dict[str, Any]:
    """Serve by replicas on a cluster until told to stop; then say what was done."""
    with opened(cfg):  # whatever is wrong is said here, not in a replica's log
        pass
    url = f"http://{cfg.host}:{cfg.port}"
    replicas = Replicas(
        opening=partial(replica, plain(whole_paths(cfg))),
        num=cfg.workers,
        num_cpus=cfg.num_threads,
        max_in_flight=cfg.batch.max_waiting,
        host=cfg.host,
        port=cfg.port,
        address=cfg.ray.address,
    )
    said = replicas.run(lambda: log.info("%d replicas answer at %s", cfg.workers, url))
    return _document(url, said) | {"workers": cfg.workers}


@contextmanager
def replica(settings: dict[str, Any], name: str, board: Board) -> Iterator[Any]:
    """Be one of several replicas.

    Args:
        settings: the configuration.
        name: of this one.
        board: where all tell each other.
    """
    log_to_stderr(f"{name}: ")
    with opened(OmegaConf.create(settings), Peers(name=name, board=board)) as own:
        yield own.application


def _document(url: str, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    newest = latest(snapshots)[-1] if snapshots else {}
    return {
        "url": url,
        "model": newest.get("model"),
        "version": newest.get("version"),
        "artefact_sha256": newest.get("artefact_sha256"),
        **totals(snapshots),
        "log_problem": next((one["log_problem"] for one in snapshots if one["log_problem"]), None),
    }
