"""The candidates of a search: read from the space, each built once: a mistake shows at once."""

from collections.abc import Mapping

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from distill.deployment.search.space import Candidate, candidates
from distill.errors import UsageError, UserError
from distill.verbs.learning.networks import build_student
from distill.verbs.learning.store import store_folder, uses_store
from distill.verbs.run.workspace import Workspace, plain


def read_candidates(workspace: Workspace, max_candidates: int) -> dict[str, Candidate]:
    """List the candidates of the configured space, each of which can be built.

    Raises:
        UsageError: one cannot; nothing has run yet.
    """
    cfg = workspace.cfg
    found = candidates(plain(cfg.get("space")) or {}, max_candidates, cfg.seed)
    for candidate in found:
        try:
            build_student(workspace.changed(with_student(cfg, candidate)))
        except (UserError, HydraException) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"Expected every student in `space` to fit the data but `{candidate.name}` does "
                f"not: {reason} Mend or remove it; nothing has run yet."
            ) from error
    return {candidate.name: candidate for candidate in found}


def with_student(cfg: DictConfig, candidate: Candidate) -> DictConfig:
    """Copy a configuration, with another student."""
    own = cfg.copy()
    own.student = OmegaConf.create(candidate.student)
    return own


def pipeline_cfg(workspace: Workspace, candidate: Candidate, folder: str) -> DictConfig:
    """Configure a pipeline of its own for a candidate, which learns from the search's labels."""
    own = with_student(workspace.cfg, candidate)
    if uses_store(workspace):
        own.soft_labels.path = str(store_folder(workspace))
    own.run_dir = folder
    own.name = f"{workspace.cfg.name}, {candidate.name}"
    own.preflight = False  # it has passed it
    for key in ("space", "search"):
        del own[key]
    return own


def workspaces(workspace: Workspace, found: Mapping[str, Candidate]) -> dict[str, Workspace]:
    """Give each candidate a workspace in the search's own folder."""
    return {
        name: workspace.changed(with_student(workspace.cfg, candidate))
        for name, candidate in found.items()
    }
