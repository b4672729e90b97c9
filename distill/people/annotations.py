"""What people said of samples, joined with a split: which sample, which class, how often, who.

Knows the names of samples and of classes; knows nothing of images or of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.people.annotation_files import Rows, listed, read_column, read_rows
from distill.sample_names import INDEX, Samples, locate, places
from distill.tasks import as_names, class_numbers


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Answers of people, one row for each or for some that are the same.

    Attributes:
        samples: position of the sample in its split, [A].
        labels: class numbers, [A].
        counts: how many people said so, [A].
        annotators: who, [A] names; None where that is not known of all.
        seconds: what each answer took, [A]; None where that is not known of all.
        num_left_out: answers that were cancelled or are empty.
    """

    samples: NDArray[np.int64]
    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    annotators: NDArray[np.str_] | None = None
    seconds: NDArray[np.float64] | None = None
    num_left_out: int = 0

    def table(self, num_samples: int, num_classes: int) -> NDArray[np.int64]:
        """Count the answers of every sample by class, [num_samples, num_classes]."""
        counts = np.zeros((num_samples, num_classes), np.int64)
        np.add.at(counts, (self.samples, self.labels), self.counts)
        return counts


def read_annotations(
    paths: Sequence[Path], samples: Samples, classes: Sequence[str]
) -> Annotations:
    """Read what people said of a split, from one file or several.

    A file is one of

        .parquet, .csv  columns `index`, `path` or `name`, and `label`, with `annotator` and
                        `seconds` where known: one row for each answer; or `counts`, a list with
                        one number for each class: one row for each sample
        .json           as Label Studio exports it, `index` or `path` in each task's `data`;
                        cancelled answers are left out

    Names go before numbers, see `locate`.

    Args:
        paths: the files; their answers are put together.
        samples: of the split.
        classes: names in the order of the labels.

    Raises:
        UserError: a file is missing or damaged, names samples that are not in the split or labels
            that are no class, or one person answers a sample twice.
    """
    parts = [_join(read_rows(path), path, samples, classes) for path in paths]
    people = [part.annotators for part in parts if part.annotators is not None]
    seconds = [part.seconds for part in parts if part.seconds is not None]
    whole = Annotations(
        samples=np.concatenate([part.samples for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
        annotators=np.concatenate(people) if len(people) == len(parts) else None,
        seconds=np.concatenate(seconds) if len(seconds) == len(parts) else None,
        num_left_out=sum(part.num_left_out for part in parts),
    )
    _check_once(whole, paths, samples)
    return whole


def read_answers(path: Path, column: str, samples: Samples) -> NDArray[Any]:
    """Read a column of existing predictions, one for every sample of a split, as it is, [N].

    Args:
        path: a .csv or .parquet file with a column `index`, `path` or `name`, and the predictions.
        column: of class names or numbers.
        samples: of the split; the file may know more of them.

    Raises:
        UserError: the file is missing or damaged, or a sample has no prediction or several.
    """
    rows = read_column(path, column)
    positions = _positions(rows, samples, path, others_matter=False)
    known = np.flatnonzero(positions >= 0)
    times = np.bincount(positions[known], minlength=len(samples.indices))
    if (times != 1).any():
        raise UserError(
            f"Expected one prediction for each of the {len(times)} test samples in {path} but "
            f"{(times == 0).sum()} have none and {(times > 1).sum()} have several, such as index "
            f"{listed(samples.indices[times != 1])}. Mend the file."
        )
    return rows.labels[known[np.argsort(positions[known])]]


def _join(rows: Rows, path: Path, samples: Samples, classes: Sequence[str]) -> Annotations:
    """Find the samples and the classes that a file names."""
    positions = _positions(rows, samples, path)
    labels = np.asarray(rows.labels)
    if labels.ndim == 2:
        if labels.shape[1] != len(classes) or (labels < 0).any() or not labels.any():
            raise UserError(
                f"Expected `counts` in {path} to have {len(classes)} numbers from 0 on, one for "
                f"each class, but found {labels.shape[1]}, the smallest {labels.min()}. Count for "
                "each class in the order of the data's classes."
            )
        row, number = np.nonzero(labels)
        return Annotations(samples=positions[row], labels=number, counts=labels[row, number])
    return Annotations(
        samples=positions,
        labels=class_numbers(as_names(labels), classes, str(path)),
        counts=np.ones(len(positions), np.int64),
        annotators=None if rows.annotators is None else np.array(rows.annotators, str),
        seconds=None if rows.seconds is None else np.array(rows.seconds, float),
        num_left_out=rows.num_left_out,
    )


def _positions(
    rows: Rows, samples: Samples, path: Path, *, others_matter: bool = True
) -> NDArray[np.int64]:
    """Find samples in their split; -1 for those of other splits, where these do not matter."""
    found = locate(rows.index, rows.names, places([samples]), path)
    place = {number: position for position, number in enumerate(samples.indices.tolist())}
    positions = np.full(len(rows.labels), -1)
    positions[found.rows] = [place.get(number, -1) for number in found.numbers.tolist()]
    unknown = np.flatnonzero(positions < 0)
    if (others_matter and len(unknown)) or len(unknown) == len(positions):
        theirs, own = rows.index, samples.indices
        if found.by != INDEX:
            theirs, own = np.array(rows.names[found.by]), np.array(samples.paths)
        assert theirs is not None
        raise UserError(
            f"Expected {found.by} values of test samples in {path} but {len(unknown)} of "
            f"{len(positions)} rows are of samples that the test set does not have: "
            f"{listed(theirs[unknown])}. It has {listed(own)}. Leave other samples out, or name "
            "the data that they are of."
        )
    return positions


def _check_once(whole: Annotations, paths: Sequence[Path], samples: Samples) -> None:
    if whole.annotators is None:
        return
    seen: set[tuple[str, int]] = set()
    for who, sample in zip(whole.annotators.tolist(), whole.samples.tolist(), strict=True):
        if (who, sample) in seen:
            raise UserError(
                f"Expected one answer of each annotator for a sample in {listed(paths)} but "
                f"`{who}` answers index {samples.indices[sample]} twice. Keep one of them."
            )
        seen.add((who, sample))
