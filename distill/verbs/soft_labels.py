"""`soft_labels`: the teacher's answers for every sample and view, in a verified store.

With `data=prediction_log` its answers to what production asked, for whoever watches it there.
"""

from typing import Any

from omegaconf import DictConfig

from distill.errors import UserError
from distill.verbs.run.workspace import open_workspace


def run(cfg: DictConfig) -> dict[str, Any]:
    """Make the teacher ready and label every sample and view."""
    with open_workspace(cfg, trains=True) as workspace:
        # What trains takes seconds to import: data that are not there are told before.
        from distill.verbs.learning.soft_labels import logged_stage, soft_labels_stage
        from distill.verbs.learning.store import check_store_settings, uses_store
        from distill.verbs.learning.teacher import teacher_stage

        if workspace.data.logged is not None:
            return logged_stage(workspace, workspace.data.logged)
        if not uses_store(workspace):
            raise UserError("Expected `soft_labels=store` but it is `none`: nothing to store.")
        check_store_settings(workspace)
        teacher_stage(workspace)
        return soft_labels_stage(workspace)
