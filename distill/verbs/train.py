"""`train`: the teacher, the control (the student on labels alone) and the distilled student."""

from typing import Any

from omegaconf import DictConfig

from distill.verbs.run.workspace import open_workspace


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train one role, or all three in order."""
    with open_workspace(cfg, trains=True) as workspace:
        # What trains takes seconds to import: data that are not there are told before.
        from distill.verbs.learning.configuration import check_configuration
        from distill.verbs.learning.roles import ROLES, train_roles

        check_configuration(workspace)
        return train_roles(workspace, ROLES if cfg.action == "all" else (cfg.action,))
