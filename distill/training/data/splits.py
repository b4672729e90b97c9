"""Data in three parts: train to learn, validation to choose, test to report.

What images and tables share. Knows nothing of where rows come from.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UserError
from distill.files import sha256_json
from distill.statistics.scoring import Truth
from distill.tables.columns import Records
from distill.tables.encoding import Encoder, Layout
from distill.tables.windows import Windows
from distill.tasks import Task, TaskKind
from distill.training.data.leaks import Leak


class RowsOnDisk:
    """Some rows of an array on disk, read when they are asked for.

    Stands for the array of those rows where a copy would not fit in memory: it has a shape and can
    be sliced and indexed along its first axis.

    Args:
        array: [M, H, W, C].
        rows: [N] positions in it.
    """

    def __init__(self, array: "NDArray[Any] | _EndToEnd", rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape, self.ndim = (len(rows), *array.shape[1:]), array.ndim
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self._array[self._rows[key]])

    def __reduce__(self) -> Any:
        """Refuse to travel: all of the array would.

        Raises:
            UserError: always.
        """
        raise UserError(
            "Expected images that stay on disk (`data.scratch`) to be read by the process that "
            "uses them but `trainer=ddp` hands them to others. Start the processes with torchrun "
            "(see `conf/trainer/ddp.yaml`), or set `data.scratch=null`."
        )

    def take(self, positions: NDArray[np.int64]) -> "RowsOnDisk":
        """Select some of the rows, still unread."""
        return RowsOnDisk(self._array, self._rows[positions])


class _EndToEnd:
    """Two arrays, [N, ...] and [M, ...], that are indexed as one of [N + M, ...] and stay apart."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second
        self.shape, self.ndim = (len(first) + len(second), *first.shape[1:]), len(first.shape)
        self.dtype = first.dtype

    def __getitem__(self, positions: Any) -> NDArray[Any]:
        positions = np.asarray(positions)
        count, in_first = len(self._first), positions < len(self._first)
        found = np.empty((*positions.shape, *self.shape[1:]), self.dtype)
        found[in_first] = self._first[positions[in_first]]
        found[~in_first] = self._second[positions[~in_first] - count]
        return found


def chunks(images: Any, size: int = 1024) -> Iterator[NDArray[Any]]:
    """Read images piece by piece, so that they never are in memory all at once."""
    return (images[start : start + size] for start in range(0, len(images), size))


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples and their labels.

    Attributes:
        inputs: what a network learns from, [N, ...]: images, uint8 [N, H, W, C], in memory or as
            `RowsOnDisk` of an array on disk; encoded rows of a table, float32 [N, F].
        labels: see `TaskKind`.
        indices: [N], stable numbers within the file or folder they came from.
        paths: [N], as in that file or below that folder, if it has any.
        records: of a table or a series, the raw values that `inputs` encodes, [N] (see `columns`).
        targets: what a network learns of `labels`, likewise; None where that is the same.
        blocks: see `Truth`.
        naive_error: likewise, of forecasts.
        spans: [N, 2], the first and the last moment of each label, on one clock for all rows; None
            where the rows are not split by time.
        layout: what lies where in encoded rows.
    """

    inputs: Any
    labels: NDArray[Any]
    indices: NDArray[np.int64]
    paths: pa.Array | None = None
    records: Records | None = None
    targets: NDArray[Any] | None = None
    blocks: NDArray[Any] | None = None
    naive_error: NDArray[np.float64] | None = None
    spans: NDArray[np.int64] | None = None
    layout: Layout | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def served(self) -> Any:
        """What the exported model is given: images, or records."""
        return self.inputs if self.records is None else self.records

    @property
    def truth(self) -> Truth:
        """What answers are held against."""
        return Truth(labels=self.labels, blocks=self.blocks, naive_error=self.naive_error)

    @property
    def learnt(self) -> NDArray[Any]:
        """What a network is to answer: the labels, numbers in units that suit it."""
        return self.labels if self.targets is None else self.targets

    def take(self, positions: NDArray[np.int64]) -> "Split":
        """Select some samples; each keeps its index."""
        inputs = self.inputs
        if isinstance(inputs, np.memmap):
            inputs = RowsOnDisk(inputs, np.arange(len(inputs)))
        return Split(
            inputs=inputs.take(positions) if isinstance(inputs, RowsOnDisk) else inputs[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
            paths=None if self.paths is None else self.paths.take(pa.array(positions)),
            records=None if self.records is None else self.records[positions],
            targets=None if self.targets is None else self.targets[positions],
            blocks=None if self.blocks is None else self.blocks[positions],
            naive_error=None if self.naive_error is None else self.naive_error[positions],
            spans=None if self.spans is None else self.spans[positions],
            layout=self.layout,
        )


def joined(first: Split, second: Split) -> Split:
    """Put the rows of two splits into one, in order; images on disk stay there.

    Of rows without blocks beside others that have some, each is a block of its own.
    """

    def both(name: str) -> Any:
        own, other = getattr(first, name), getattr(second, name)
        if own is None or other is None:
            return None
        if any(isinstance(one, RowsOnDisk | np.memmap) for one in (own, other)):
            return RowsOnDisk(_EndToEnd(own, other), np.arange(len(own) + len(other)))
        return np.concatenate([own, other])

    names = ("inputs", "labels", "indices", "records", "targets", "spans")
    parts = {name: both(name) for name in names}
    return dataclasses.replace(first, paths=None, blocks=_blocks(first, second), **parts)


def _blocks(first: Split, second: Split) -> NDArray[Any] | None:
    if first.blocks is None and second.blocks is None:
        return None
    if first.blocks is not None and second.blocks is not None:
        return np.concatenate([first.blocks, second.blocks])  # by the same names
    numbers = [
        np.arange(len(own)) if own.blocks is None else np.unique(own.blocks, return_inverse=True)[1]
        for own in (first, second)
    ]
    return np.concatenate([numbers[0], numbers[1] + numbers[0].max(initial=-1) + 1])


def labelled_by(split: Split, answers: NDArray[np.floating], task: Task) -> Split:
    """Take a teacher's answers, [N, C] as a network gives them, for the labels of a split."""
    if task.kind is TaskKind.REGRESSION:
        return dataclasses.replace(split, targets=answers.astype(np.float32))
    if task.kind is TaskKind.MULTI_LABEL:
        return dataclasses.replace(split, labels=(answers > 0).astype(split.labels.dtype))
    return dataclasses.replace(split, labels=answers.argmax(axis=1).astype(split.labels.dtype))


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set: train to learn, validation to choose, test to report."""

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    test_is_drawn: bool = False  # from what also trains, in no file or folder of its own
    num_skipped: int = 0
    encoder: Encoder | Windows | None = None  # of records; images have none
    left_out: Mapping[str, str] = field(default_factory=dict)  # columns of a table, and why
    leaks: tuple[Leak, ...] = ()  # warnings about columns
    unlabelled: Split | None = None  # training rows that the teacher alone knows a label of
    # How often each training row is shown, mean 1; those of unlabelled rows may follow.
    weights: NDArray[np.float64] | None = None
    old_test: Split | None = None  # what was tested on before the world changed: a guardrail
    logged: NDArray[np.str_] | None = None  # predictions whose inputs the last unlabelled rows are
    remarks: tuple[str, ...] = ()  # what else is odd, a sentence each

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what a network answers."""
        return self.task.answers

    @property
    def what(self) -> str:
        """What a sample is, in the plural."""
        if self.encoder is None:
            return "images"
        return "windows" if isinstance(self.encoder, Windows) else "rows"

    @property
    def is_numeric(self) -> bool:
        """Whether numbers are asked for."""
        return self.task.kind is TaskKind.REGRESSION

    @property
    def units(self) -> list[list[float]]:
        """Mean and scale in which a network answers each number; empty where no such are fixed."""
        if not self.is_numeric or isinstance(self.encoder, Windows):
            return []  # a window has units of its own
        return [list(self.task.mean), list(self.task.scale)]

    def in_units(self, outputs: NDArray[np.floating], split: Split) -> NDArray[np.floating]:
        """Bring a network's outputs for a split's rows, [N, C], to the labels' own units.

        The quantiles of each number are put in order.
        """
        if not self.is_numeric:
            return outputs
        outputs = self.task.ascending(outputs)
        if isinstance(self.encoder, Windows):
            assert split.records is not None
            return self.encoder.in_units(split.records, outputs)
        scale, mean = map(self.task.of_answers, (self.task.scale, self.task.mean))
        return outputs * scale.astype(np.float32) + mean.astype(np.float32)

    def scaled(self, answers: NDArray[np.floating], split: Split) -> NDArray[np.floating]:
        """Bring answers in the labels' own units, [N, C], to those in which a network learns."""
        if not self.is_numeric:
            return answers
        if isinstance(self.encoder, Windows):
            assert split.records is not None
            return self.encoder.scaled(split.records, answers)
        return self.task.standardized(answers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the data, a sentence each."""
        return (*map(str, self.leaks), *self.remarks)

    @cached_property
    def taught(self) -> Split:
        """What a teacher labels and a student learns from; the labels of the unlabelled are 0."""
        return self.train if self.unlabelled is None else joined(self.train, self.unlabelled)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return tuple(self.train.inputs.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every input, label, block and class name, and of which sample is in which split.

        Logged inputs do not count: nothing is learnt from them, and they are others each day.
        """
        if self.logged is not None:
            return self.without_log.fingerprint
        more = [split for split in (self.unlabelled, self.old_test) if split is not None]
        own = self._hash((self.train, self.validation, self.test, *more))
        weights = [] if self.weights is None else [hashlib.sha256(self.weights.data).hexdigest()]
        if self.encoder is None and not weights:
            return own
        return sha256_json([own, repr(self.encoder), *weights])

    @property
    def without_log(self) -> "Data":
        """The data that there were before logged inputs came to stand beside them."""
        if self.logged is None or self.unlabelled is None:
            return self
        count = len(self.unlabelled) - len(self.logged)
        before = self.unlabelled.take(np.arange(count)) if count else None
        return dataclasses.replace(self, unlabelled=before, logged=None)

    @cached_property
    def test_fingerprint(self) -> str:
        """Hash of the test set alone: figures of two runs are comparable where it is the same."""
        return self._hash((self.test,))

    def _hash(self, splits: tuple[Split, ...]) -> str:
        records = self.train.records  # what rows are encoded into, training decides
        form = self.input_shape if records is None else records.dtype.descr
        digest = hashlib.sha256(repr((self.classes, form)).encode())
        for split in splits:
            for part in chunks(split.served):
                digest.update(np.ascontiguousarray(part).data)
            arrays = [split.labels, split.indices]
            if split.blocks is not None:
                arrays.append(np.unique(split.blocks, return_inverse=True)[1])
            for array in arrays:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def split_stratified(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `fraction` of every class at random; return (the rest, the drawn) as sorted positions.

    Raises:
        UserError: the fraction is not between 0 and 1, or leaves a side empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"Expected a fraction between 0 and 1 to split off but got {fraction}.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # classes together, random within
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn_counts = np.round(np.repeat(counts, counts) * fraction)
    drawn = rank < drawn_counts
    if drawn.all() or not drawn.any():
        raise UserError(
            f"Expected enough samples to split {fraction:.0%} of them off but found {len(labels)}."
        )
    return np.sort(order[~drawn]), np.sort(order[drawn])
