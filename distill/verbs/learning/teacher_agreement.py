"""How far a teacher says of training samples what their labels say: as they are, and augmented.

Only this shows that its answers are in another order, or that the views put it off.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from distill.errors import UserError
from distill.statistics.metrics import compare_paired
from distill.tasks import TaskKind
from distill.training.fit import load_weights
from distill.verbs.learning.members import teacher_members
from distill.verbs.learning.normalization import sample
from distill.verbs.learning.views import shows_samples_as_they_are
from distill.verbs.run.workspace import Workspace

if TYPE_CHECKING:
    from distill.training.data.splits import Split
    from distill.training.soft_labels import SoftLabelStore
    from distill.training.teachers.base import Teacher

log = logging.getLogger(__name__)

NUM_ASKED = 1000
CHANCE = 0.001  # of an agreement as high where a teacher knows nothing
CLEAR_DROP = 0.05
IN_ORDER = "Are the teacher's classes and answers in the order of the data's?"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a teacher said of some training samples as they are.

    Attributes:
        rows: of the training set.
        right: of each, whether it said what the label says.
    """

    rows: NDArray[np.int64]
    right: NDArray[np.bool_]


def ask_as_they_are(workspace: Workspace, teacher: "Teacher") -> Asked | None:
    """Ask a teacher of classes about a sample before it is asked about all; None of any other.

    Raises:
        UserError: its classes are clearly in another order than the data's.
    """
    from distill.training.data.loading import BatchDataset
    from distill.training.labelling import answer

    train = workspace.data.train
    if workspace.data.task.kind is not TaskKind.CLASSIFICATION:
        return None
    rows = sample(len(train), NUM_ASKED)
    answers = answer(teacher, BatchDataset(train), 0, rows).argmax(axis=1)
    labels = train.labels[rows]
    if _takes_names(workspace.cfg.teacher):
        own = getattr(teacher, "teacher", teacher).classes or workspace.data.classes
        check_order(answers, labels, workspace.data.classes, own)
    return Asked(rows=rows, right=answers == labels)


def check_order(
    answers: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    own: tuple[str, ...],
) -> None:
    """Refuse a teacher that knows nothing as it is read, and much with its classes in other order.

    The order is found on half of the samples, by the assignment that is right most often (Kuhn,
    "The Hungarian method for the assignment problem", 1955), and judged on the others.

    Args:
        answers: class numbers, [N].
        labels: likewise.
        classes: of the data.
        own: of the teacher, in its order, as they are named now.

    Raises:
        UserError: says which order that is.
    """
    commonest = np.bincount(labels).max() / len(labels)
    if not _by_chance(np.mean(answers == labels), len(labels), commonest):
        return
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (answers[::2], labels[::2]), 1)
    order = linear_sum_assignment(counts, maximize=True)[1]
    found = float(np.mean(order[answers[1::2]] == labels[1::2])) if len(labels) > 1 else 0.0
    if found < (1 + commonest) / 2:  # not half of the way from chance to always right
        return
    renamed = {classes[number]: classes[other] for number, other in enumerate(order)}
    names = ",".join(renamed.get(name, name) for name in own)
    raise UserError(
        f"Expected the teacher's classes in the order of its outputs but as they are named it is "
        f"right on {100 * np.mean(answers == labels):.1f} % of {len(labels)} training samples, "
        f"which is chance, and in another order on {100 * found:.1f} %. Set "
        f"`teacher.classes=[{names}]`."
    )


def _takes_names(teacher: DictConfig) -> bool:
    """Tell whether `teacher.classes` names a teacher's classes: one is read, and not a run's."""
    checkpoint = teacher.get("checkpoint")
    return bool(teacher.get("path")) or (
        checkpoint is not None and "classes" not in load_weights(Path(checkpoint))
    )


def agreement_with_labels(
    workspace: Workspace, store: "SoftLabelStore", asked: Asked | None
) -> float:
    """Tell how far the teacher says of training samples what their labels say; warn if hardly.

    Returns:
        The share of classes, or of labels, that are the same; of numbers the share of the labels'
        variance that is explained, R^2.
    """
    train, task = workspace.data.train, workspace.data.task
    answers, kind = store.logits(0, train.indices), task.kind
    if kind is TaskKind.REGRESSION:  # of quantiles those nearest the median
        answers = answers[:, task.middle :: max(1, len(task.quantiles))]
        return _explained(answers, train.learnt)
    same, commonest = _same(answers, train, kind)
    agreement = float(np.mean(same))
    as_they_are = ""
    if asked is not None and not shows_samples_as_they_are(workspace.cfg):
        as_they_are = (
            f" in the first view, and of {100 * asked.right.mean():.1f} % of {len(asked.rows)} of "
            "them as they are"
        )
    log.info(
        "the teacher says of %.1f %% of the training samples what their label says%s",
        100 * agreement,
        as_they_are,
    )
    if _by_chance(agreement, len(train), commonest):
        log.warning(
            "WARNING: always saying the most common class would be right on %.1f %%. %s",
            100 * commonest,
            IN_ORDER,
        )
    elif asked is not None and as_they_are and _is_put_off(workspace, asked, same[asked.rows]):
        log.warning(
            "WARNING: the views put the teacher off, and the student would learn what it then "
            "says. Try `views=none`, or gentler ones (see `conf/views`)."
        )
    return agreement


def _same(
    answers: NDArray[np.floating], train: "Split", kind: TaskKind
) -> tuple[NDArray[np.bool_], float]:
    """Tell which answers are as the labels, and how many would be if all were the commonest."""
    if kind is TaskKind.MULTI_LABEL:
        share = train.labels.mean(axis=0)
        same = (answers > 0) == (train.labels > 0)
        return same, float(np.maximum(share, 1 - share).mean())
    same = answers.argmax(axis=1) == train.labels
    return same, float(np.bincount(train.labels).max() / len(train))


def _by_chance(agreement: float, num_samples: int, commonest: float) -> bool:
    """Tell whether always saying the commonest may be right as often."""
    return bool(binom.sf(round(agreement * num_samples) - 1, num_samples, commonest) > CHANCE)


def _is_put_off(workspace: Workspace, asked: Asked, augmented: NDArray[np.bool_]) -> bool:
    """Tell whether a teacher that has not learnt the views is clearly worse under them."""
    members = teacher_members(workspace.cfg.teacher).values()
    learnt = all("network" in member and member.checkpoint is None for member in members)
    if learnt or workspace.cfg.mixing:  # what is mixed has another label than its own
        return False
    drop = compare_paired(asked.right, augmented)
    return drop.interval[0] > 0 and drop.estimate > CLEAR_DROP


def _explained(answers: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Tell what share of the targets' variance a teacher's numbers explain, and warn if none."""
    wide = targets.astype(np.float64)
    spread = ((wide - wide.mean(axis=0)) ** 2).mean()
    explained = float(1 - ((answers - wide) ** 2).mean() / (spread or 1.0))
    log.info("the teacher explains %.1f %% of the training labels' variance", 100 * explained)
    if explained <= 0:
        log.warning(
            "WARNING: the mean of all labels would be as near. Are the teacher's answers in the "
            "order of the data's rows, and in the label's unit?"
        )
    return explained
