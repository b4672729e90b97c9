"""What `serve` is told, held against what makes sense: numbers, texts, choices; no file is opened.

Imports nothing heavy, so that a mistake shows at once.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError, UserError
from distill.production.serving.listening import Listening

ENGINES = ("local", "ray")
REGISTRY = "registry"  # where a challenger comes from
_URLS = ("sqlite:///", "postgresql://", "postgresql+psycopg://", "sqlite+pysqlite:///")


@dataclass(frozen=True, kw_only=True)
class Number:
    """What a number may be.

    Attributes:
        is_whole: whether it counts something.
        least, most: that it may be.
        above: it may not be; None takes `least`.
        below: likewise.
        is_optional: whether null will do.
    """

    is_whole: bool = False
    least: float = -math.inf
    most: float = math.inf
    above: float | None = None
    below: float | None = None
    is_optional: bool = False

    def takes(self, value: Any) -> bool:
        """Tell whether it may be this."""
        if value is None:
            return self.is_optional
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        return (
            math.isfinite(value)
            and self.least <= value <= self.most
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Say it in words."""
        bounds = [
            f"> {self.above}" if self.above is not None else "",
            f">= {self.least}" if math.isfinite(self.least) else "",
            f"< {self.below}" if self.below is not None else "",
            f"<= {self.most}" if math.isfinite(self.most) else "",
        ]
        said = "a whole number " if self.is_whole else "a number "
        said += " and ".join(bound for bound in bounds if bound)
        return said + (", or null," if self.is_optional else "")


_COUNT, _POSITIVE = Number(is_whole=True, above=0), Number(above=0)
NUMBERS = {
    "port": Number(is_whole=True, least=0, most=65_535),
    "workers": _COUNT,
    "num_threads": _COUNT,
    "read_timeout_s": _POSITIVE,
    "deadline_ms": _POSITIVE,
    "batch.max_size": _COUNT,
    "batch.max_delay_ms": Number(least=0),
    "batch.max_waiting": _COUNT,
    "limits.max_body_bytes": _COUNT,
    "limits.max_held_bytes": _COUNT,
    "log.flush_ms": _POSITIVE,
    "log.retention_days": Number(above=0, is_optional=True),
    "trial.slow_ms": _POSITIVE,
    "trial.deadline_ms": _POSITIVE,
    "trial.tick_seconds": _POSITIVE,
    "trial.holdout": Number(least=0, below=1),
    "trial.limits.num_threads": _COUNT,
    "trial.limits.niceness": Number(is_whole=True, least=0, most=19),
    "trial.limits.max_in_flight": _COUNT,
    "trial.limits.hang_seconds": _POSITIVE,
    "trial.limits.start_seconds": _POSITIVE,
    "trial.limits.max_rss_bytes": _COUNT,
}
TEXTS = ("host", "engine")
OPTIONAL_TEXTS = ("artefact", "challenger", "name", "log.url", "ray.address", "registry.model")


def listening(cfg: DictConfig) -> Listening:
    """Say where to listen."""
    return Listening(host=cfg.host, port=cfg.port, read_timeout_s=cfg.read_timeout_s)


def check(cfg: DictConfig) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: a value is of another kind, or beyond its bounds, or two do not go together.
        UserError: an artefact is not there.
    """
    for name, number in NUMBERS.items():
        value = OmegaConf.select(cfg, name)
        if not number.takes(value):
            raise UsageError(f"Expected `{name}` to be {number} but got {value!r}.")
    for name in (*TEXTS, *OPTIONAL_TEXTS):
        value = OmegaConf.select(cfg, name)
        if not ((isinstance(value, str) and value) or (value is None and name in OPTIONAL_TEXTS)):
            raise UsageError(f"Expected `{name}` to be a text but got {value!r}.")
    if not isinstance(cfg.log.sync, bool):
        raise UsageError(f"Expected `log.sync` to be true or false but got {cfg.log.sync!r}.")
    if cfg.engine not in ENGINES:
        raise UsageError(f"Expected `engine` of {', '.join(ENGINES)} but got {cfg.engine!r}.")
    _check_log(cfg)
    for name in ("artefact", "challenger"):
        if cfg[name] not in (None, REGISTRY) and not Path(cfg[name]).exists():
            raise UserError(
                f"Expected an ONNX file or an export folder at `{name}={cfg[name]}` but there is "
                "none."
            )


def _check_log(cfg: DictConfig) -> None:
    url = cfg.log.url
    if url is not None and not url.startswith(_URLS):
        scheme, separator, _ = url.partition("://")  # the rest may hold a password
        raise UsageError(
            f"Expected `log.url` of sqlite or PostgreSQL but got "
            f"`{scheme + separator + '...' if separator else url}`. Write "
            "`sqlite:///path/log.db` (four slashes before a path from the root) or "
            "`postgresql://user@host/database`."
        )
    if url is None and cfg.challenger not in (None, REGISTRY):
        raise UsageError("Expected `log.url=` with `challenger=`: decisions are made from it.")
    if url is None and cfg.workers > 1:
        raise UsageError(
            "Expected `log.url=` with several workers: feedback may reach another one than the "
            "prediction did."
        )
    if cfg.engine == "ray" and not (cfg.port and str(url).startswith("postgresql")):
        raise UsageError(
            "Expected `log.url=postgresql://...` and a `port` with `engine=ray`: its replicas may "
            "be on several machines, where one file is not enough."
        )
