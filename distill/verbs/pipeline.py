"""`pipeline`: from data to verdict, every stage in order, in one resumable run folder."""

from typing import Any

from omegaconf import DictConfig

from distill.verbs.production.registry import pinned
from distill.verbs.run.summary import show_verdict
from distill.verbs.run.workspace import open_workspace
from distill.verbs.stages.unchanged import needs_of, nothing_to_do, remember


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run all stages and return the verdict; that of a finished run whose inputs are the same."""
    needs = needs_of(cfg)
    found = nothing_to_do(cfg, needs)
    if found is not None:
        return found
    with open_workspace(pinned(cfg), trains=True) as workspace:
        # What trains takes seconds to import: data that are not there are told before.
        from distill.verbs.learning.configuration import check_configuration
        from distill.verbs.stages.backtest import check_origins
        from distill.verbs.stages.order import all_stages
        from distill.verbs.stages.refusal import refusal
        from distill.verbs.stages.tracking import track

        check_configuration(workspace)
        check_origins(workspace)
        refused = refusal(workspace)
        if refused is not None:
            return refused
        verdict = all_stages(workspace)
        if track(workspace, verdict):
            remember(workspace, needs)
        show_verdict(workspace.console, cfg.name, verdict)
        return verdict
