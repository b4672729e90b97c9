"""How a run shows its samples, and who can follow: views and mixing against data and teacher."""

from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from distill.errors import UserError
from distill.verbs.run.workspace import Workspace, named_in_errors

if TYPE_CHECKING:
    from distill.training.teachers.base import Teacher


def shows_samples_as_they_are(cfg: DictConfig) -> bool:
    """Tell whether a run neither augments samples nor mixes them: all views are then the same."""
    from distill.training.views import Unchanged

    return isinstance(instantiate(cfg.views), Unchanged) and not cfg.mixing


def check_views_of_data(workspace: Workspace) -> None:
    """Refuse to augment rows as images are, or images as rows.

    Raises:
        UsageError: views or mixing are of the other, or refuse their settings.
    """
    from distill.training.views import bound

    for group in ("views", "mixing"):
        with named_in_errors(group):
            shown = instantiate(workspace.cfg[group])
        if shown:
            bound(shown, workspace.data.train.layout)


def check_views_of_teacher(workspace: Workspace, teacher: "Teacher") -> None:
    """Refuse to augment what a teacher does not see.

    Raises:
        UserError: it answers samples by their numbers, or raw rows.
    """
    if not teacher.sees_images and not shows_samples_as_they_are(workspace.cfg):
        raise UserError(
            "Expected `views=none mixing=none` for a teacher of saved predictions, or of raw rows, "
            "but samples are augmented: it would teach one sample's answer for what another looks "
            "like. Add `views=none mixing=none`, or use a teacher that can be asked."
        )
