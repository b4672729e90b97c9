"""`serve`: a model over HTTP, until SIGINT or SIGTERM, from one process or several.

What is cheap to see wrong is said at once: the libraries that answer take seconds to load.
"""

import logging
from typing import Any

from omegaconf import DictConfig

from distill.production.serving.listening import is_loopback, open_socket
from distill.verbs.production.serve_settings import check, listening

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Serve until told to stop; then say what was done."""
    check(cfg)
    if not is_loopback(cfg.host):
        log.warning(
            "whoever reaches %s may ask the model, read /status and /metrics, and send feedback: "
            "put a proxy that asks who it is in front, or set `host=127.0.0.1`",
            cfg.host,
        )
    if cfg.engine == "ray":
        from distill.verbs.production.processes import by_replicas

        return by_replicas(cfg)
    with open_socket(listening(cfg)) as bound:
        from distill.verbs.production.processes import answer

        return answer(cfg, bound)
