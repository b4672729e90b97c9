"""Regressors that answer one quantile each, set to a level, and side by side as one teacher.

Knows nothing of how one is fitted or kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor, nn

from distill.errors import UserError
from distill.files import sha256_json
from distill.training.teachers.base import Teacher, TeacherOutput


class QuantilesTeacher(Teacher):
    """Answers each number's quantiles, [B, D * Q], ascending.

    Fitted apart, quantiles may cross; they are sorted, as a network's are (see `Task.ascending`).

    Args:
        members: one for each level, each of which answers all numbers, [B, D].
        classes: names of the quantiles, the level fastest.
    """

    def __init__(self, members: Sequence[Teacher], classes: Sequence[str]) -> None:
        super().__init__()
        self.members, self.classes = nn.ModuleList(members), tuple(classes)
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of all members."""
        members = [member.fingerprint for member in self.members if isinstance(member, Teacher)]
        return sha256_json(members)

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch."""
        answers = [member(image, index).logits for member in self.members]
        by_number = torch.stack(answers, dim=2)  # [B, D, Q]
        return TeacherOutput(logits=by_number.sort(dim=2).values.flatten(1))


def at_level(regressor: Any, level: float) -> Any:
    """Copy a regressor that answers a quantile, or a pipeline of one, and set its level.

    It is told by its parameters: `quantile`, or `alpha` beside a `loss` or `objective` of that
    name, as scikit-learn and LightGBM call them.

    Raises:
        UserError: it answers something else, such as a mean.
    """
    parameters = regressor.get_params()
    found = {name: level for name in parameters if _is_level(name, parameters)}
    if not found:
        name = type(regressor).__name__
        losses = [f"{key}={own}" for key, own in parameters.items() if key.endswith("loss")]
        raise UserError(
            f"Expected a teacher of quantiles for `data.quantiles` but {name} answers one number"
            f"{f' ({losses[0]})' if losses else ''}. Use `teacher=sklearn_quantiles`, a regressor "
            "with `loss: quantile`, or a network trained in the run, such as `teacher=mlp`; or set "
            "`data.quantiles=null`."
        )
    own: Any = clone(regressor)
    return own.set_params(**found)


def _is_level(name: str, parameters: dict[str, Any]) -> bool:
    prefix, separator, last = name.rpartition("__")
    beside = [parameters.get(f"{prefix}{separator}{key}") for key in ("loss", "objective")]
    if last == "alpha":
        return "quantile" in beside
    return last == "quantile" and all(own in (None, "quantile") for own in beside)
