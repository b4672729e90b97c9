"""`serve`: a model over HTTP, until SIGINT or SIGTERM, from one process or several.

What is cheap to see wrong is said at once: the libraries that answer take seconds to load.
"""

from typing import Any

from omegaconf import DictConfig

from distill.production.serving.listening import open_socket
from distill.verbs.serve_settings import check, listening


def run(cfg: DictConfig) -> dict[str, Any]:
    """Serve until told to stop; then say what was done."""
    check(cfg)
    if cfg.engine == "ray":
        from distill.verbs.processes import by_replicas

        return by_replicas(cfg)
    with open_socket(listening(cfg)) as bound:
        from distill.verbs.processes import answer

        return answer(cfg, bound)
