"""What `serve` is told, held against what makes sense: numbers, texts, choices; no file is opened.

Imports nothing heavy, so that a mistake shows at once.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError, UserError
from distill.production.serving.listening import Listening
from distill.verbs.run.numbers import COUNT, POSITIVE, Number, check_numbers

ENGINES = ("local", "ray")
REGISTRY = "registry"  # where a challenger comes from
_URLS = ("sqlite:///", "postgresql://", "postgresql+psycopg://", "sqlite+pysqlite:///")


NUMBERS = {
    "port": Number(is_whole=True, least=0, most=65_535),
    "workers": COUNT,
    "num_threads": COUNT,
    "read_timeout_s": POSITIVE,
    "deadline_ms": POSITIVE,
    "batch.max_size": COUNT,
    "batch.max_delay_ms": Number(least=0),
    "batch.max_waiting": COUNT,
    "limits.max_body_bytes": COUNT,
    "limits.max_held_bytes": COUNT,
    "log.flush_ms": POSITIVE,
    "log.retention_days": Number(above=0, is_optional=True),
    "trial.slow_ms": POSITIVE,
    "trial.deadline_ms": POSITIVE,
    "trial.tick_seconds": POSITIVE,
    "trial.holdout": Number(least=0, below=1),
    "trial.limits.num_threads": COUNT,
    "trial.limits.niceness": Number(is_whole=True, least=0, most=19),
    "trial.limits.max_in_flight": COUNT,
    "trial.limits.max_shadows_per_second": Number(above=0, is_optional=True),
    "trial.limits.hang_seconds": POSITIVE,
    "trial.limits.start_seconds": POSITIVE,
    "trial.limits.max_rss_bytes": COUNT,
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
    check_numbers(cfg, NUMBERS)
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
