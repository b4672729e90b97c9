"""People as a reference: what they said of the test set, beside the best baseline."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.people.annotations import read_annotations
from distill.people.raters import gain_of_single, score_humans
from distill.tasks import TaskKind
from distill.verbs.run.workspace import OUTPUTS, Workspace, plain

VOTES = "predictions/humans.npz"


def human_files(workspace: Workspace) -> tuple[Path, ...]:
    """List the files of annotations: `humans=a.csv` or `humans=[a.csv,b.csv]`."""
    given = plain(workspace.cfg.humans)
    return tuple(Path(path) for path in (given if isinstance(given, list) else [given]) if path)


def score_people(
    workspace: Workspace, best: NDArray[np.int64]
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Score people, paired with the best baseline on the samples that they answered.

    Args:
        workspace: of the run.
        best: predictions of the best baseline, [N].

    Returns:
        Their figures, and the vote on every test sample, [N], -1 where nobody answered.

    Raises:
        UserError: a file is missing or damaged, or names unknown samples or classes.
    """
    data, confidence = workspace.data, workspace.budget.confidence
    if data.task.kind is not TaskKind.CLASSIFICATION:
        raise UsageError(
            f"Expected classes for `humans=` but {data.name} asks for "
            f"{OUTPUTS[data.task.kind]}. Leave `humans` out."
        )
    labels, blocks, num_classes = data.test.labels, data.test.blocks, len(data.classes)
    annotations = read_annotations(human_files(workspace), data.test, data.classes)
    given: dict[str, Any] = {"blocks": blocks, "confidence": confidence}
    score, vote = score_humans(annotations, labels, num_classes, **given)
    seen = vote >= 0
    pair = ((own == labels)[seen] for own in (vote, best))
    some = None if blocks is None else blocks[seen]
    majority = workspace.scoring.compare(*pair, blocks=some, confidence=confidence)
    single = gain_of_single(annotations, labels, best, num_classes, **given)
    cost = workspace.cfg.humans_cost_per_label
    return {
        "measured_through": "annotations of the test set",
        "score": score,
        "cost_per_sample": None
        if cost is None
        else {"single": cost, "majority": cost * score.num_annotations / score.num_samples},
        "gain_vs_best": {"single": single, "majority": majority},
    }, vote
