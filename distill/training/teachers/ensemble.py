"""Many teachers as one: their probabilities averaged, or their numbers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from distill.errors import UserError, settings_of
from distill.files import sha256_json
from distill.tasks import TaskKind
from distill.training.teachers.base import Teacher, TeacherOutput


class EnsembleTeacher(Teacher):
    """The weighted mean of its members' probabilities, as logits, or of their numbers.

    logits = log sum_k w_k softmax(z_k): probabilities are averaged at temperature 1, and whatever
    softens the logits later softens that mean. Of several labels those of each, sigmoid(z_k), are
    averaged alike. Every member brings its own preprocessing.

    Args:
        members: teachers of the same classes in the same order.
        weights: one a member, 0 or more; None weighs all alike.
        classes: names.
        kind: of answers.
        settings: of each member, such as `teacher.members.first`, for messages; None for none.

    Raises:
        UserError: there is no member, or the weights make no sense.
    """

    log_weights: Tensor

    def __init__(
        self,
        members: Sequence[Teacher],
        weights: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        kind: TaskKind = TaskKind.CLASSIFICATION,
        settings: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._kind = kind
        self._settings = ["teacher"] * len(members) if settings is None else list(settings)
        self.members, self.weights = nn.ModuleList(members), check_weights(weights, len(members))
        self.classes = tuple(classes) if classes is not None else None
        self.computes_in_torch = all(member.computes_in_torch for member in members)
        self.sees_images = all(member.sees_images for member in members)
        self.register_buffer("log_weights", torch.tensor(self.weights).div(sum(self.weights)).log())
        self.train()

    @property
    def teachers(self) -> list[Teacher]:
        """The members."""
        return [member for member in self.members if isinstance(member, Teacher)]

    def show_view(self, view: int) -> None:
        """Tell every member."""
        for member in self.teachers:
            member.show_view(view)

    def on_test(self) -> Teacher | None:
        """Ask the members about the test set; None where one of them has no answers for it."""
        asked = [member.on_test() for member in self.teachers]
        known = [member for member in asked if member is not None]
        return self._with(known) if len(known) == len(asked) else None

    def folded(self) -> Teacher:
        """Fold every member."""
        return self._with([member.folded() for member in self.teachers])

    def _with(self, members: list[Teacher]) -> Teacher:
        return EnsembleTeacher(members, self.weights, self.classes, self._kind, self._settings)

    @property
    def fingerprint(self) -> str:
        """Hash of the members and their weights."""
        members = [member.fingerprint for member in self.teachers]
        return sha256_json([members, [weight / sum(self.weights) for weight in self.weights]])

    @torch.no_grad()
    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch."""
        answers = []
        for settings, member in zip(self._settings, self.members, strict=True):
            with settings_of("teacher", settings):
                answers.append(member(image, index).logits.float())
        members = torch.stack(answers)  # [K, B, C]
        return TeacherOutput(logits=self._mean(members), member_logits=members)

    def _mean(self, members: Tensor) -> Tensor:
        weights = self.log_weights[:, None, None]
        if self._kind is TaskKind.REGRESSION:
            return (members * weights.exp()).sum(dim=0)
        if self._kind is TaskKind.MULTI_LABEL:
            yes, no = (logsigmoid(sign * members) + weights for sign in (1, -1))
            return yes.logsumexp(dim=0) - no.logsumexp(dim=0)
        return (members.log_softmax(dim=2) + weights).logsumexp(dim=0)


def check_weights(weights: Sequence[float] | None, num_members: int) -> list[float]:
    """Return the weights of an ensemble's members; None weighs all alike.

    Raises:
        UserError: there is no member, or the weights make no sense.
    """
    if weights is None:
        weights = [1.0] * num_members
    numbers = isinstance(weights, list | tuple) and all(
        isinstance(weight, int | float) and 0 <= weight < math.inf for weight in weights
    )
    if not numbers or len(weights) != num_members or sum(weights) <= 0:
        raise UserError(
            f"Expected a weight of 0 or more for each of the {num_members} members of the "
            f"ensemble, not all 0, but got {weights}. Mend `teacher.weights`."
        )
    return [float(weight) for weight in weights]
