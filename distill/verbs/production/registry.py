"""From a configuration to the registry that it means, and to the champion's file."""

from pathlib import Path

from omegaconf import DictConfig

from distill.errors import UserError
from distill.production.registry.package import STUDENT_WEIGHTS, TEACHER_WEIGHTS
from distill.production.registry.place import Place, fetch, models

CHAMPION = "champion"


def registry_place(cfg: DictConfig, name: str | None = None) -> Place:
    """Find the registry that a configuration means.

    Args:
        cfg: with a node `registry`.
        name: of the model where the configuration names none.

    Raises:
        UserError: none is named, and there is not exactly one.
    """
    folder = Path(cfg.registry.folder)
    model = cfg.registry.model or name
    if model is None:
        known = models(folder)
        if len(known) != 1:
            found = f"{len(known)}: {', '.join(known)}" if known else "none"
            raise UserError(
                f"Expected `registry.model=`, or one model in the registry at {folder}/, but found "
                f"{found}. " + ("Name one." if known else "Run `promote register run_dir=...`.")
            )
        model = known[0]
    return Place(folder=folder, model=model, tracking_uri=cfg.registry.tracking_uri)


def champion_path(cfg: DictConfig) -> Path:
    """Find the file in production, its contract and golden samples beside it.

    It needs a server only where that version was not fetched before.

    Args:
        cfg: with a node `registry`.

    Raises:
        UserError: there is no champion, or it is not whole.
    """
    place = registry_place(cfg)
    return fetch(place, place.champion().version).artefact_path


def champion_weights(cfg: DictConfig, role: str) -> Path:
    """Find the weights that the file in production was exported from, or its teacher's.

    Args:
        cfg: with a node `registry`.
        role: student or teacher.

    Raises:
        UserError: there is no champion, it is not whole, or its teacher has no weights of one
            network.
    """
    place = registry_place(cfg)
    package = fetch(place, place.champion().version)
    name, option = {
        "student": (STUDENT_WEIGHTS, "start_from"),
        "teacher": (TEACHER_WEIGHTS, "teacher_training.start_from"),
    }[role]
    if name not in package.files:
        raise UserError(
            f"Expected weights of the champion's {role} but its version has none: that is no "
            f"single network. Set `{option}=null`."
        )
    return package.root / name


def pinned(cfg: DictConfig) -> DictConfig:
    """Name the champion's files wherever a pipeline asks for it, once.

    A promotion during a long training would otherwise change whom its stages begin with, and are
    held against.

    Raises:
        UserError: see `champion_path` and `champion_weights`.
    """
    own = cfg.copy()
    if own.against == CHAMPION:
        own.against = str(champion_path(cfg))
    if own.start_from == CHAMPION:
        own.start_from = str(champion_weights(cfg, "student"))
    if own.teacher_training.start_from == CHAMPION:
        own.teacher_training.start_from = str(champion_weights(cfg, "teacher"))
    return own


def champion_sha256(cfg: DictConfig) -> str:
    """Tell what is in production, by the ledger alone.

    Args:
        cfg: with a node `registry`.

    Raises:
        UserError: there is no champion.
    """
    return registry_place(cfg).champion().artefact_sha256
