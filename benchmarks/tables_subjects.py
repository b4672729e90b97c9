"""The tables that are distilled, what is made hard about some, and how networks learn them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split
from tables_folds import NUM_FOLDS, folds
from tables_training import Settings

from distill.files import to_json
from distill.training.data.splits import Data
from distill.training.data.tables import Choice, from_table, with_unlabelled

VALIDATION = 0.1  # of the rows that are not in the fold
DEFAULTS = Settings()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A table, and what is made hard about it.

    Attributes:
        table: of scikit-learn.
        settings: of the student.
        control: of the control; None for the student's. Where those would not suit it, it is
            given its own, or it would lose to its settings.
        wrong: share of the labels that are learnt from, replaced by another class.
        labelled: share of the rows that are learnt from which have a label; the student also
            learns from the others, as the mixture labels them.
        is_numeric: whether it is numbers that are told.
        num_trees: of each forest.
        num_folds: of a repetition, how many of the 5 are done.
    """

    table: str
    settings: Settings = DEFAULTS
    control: Settings | None = None
    wrong: float = 0.0
    labelled: float = 1.0
    is_numeric: bool = False
    num_trees: int = 300
    num_folds: int = NUM_FOLDS

    @property
    def name(self) -> str:
        """What it is called in the document."""
        parts = [self.table]
        parts += [f"{self.wrong:.0%} of the labels wrong"] if self.wrong else []
        parts += [f"{self.labelled:.0%} of the rows labelled"] if self.labelled < 1 else []
        return ", ".join(parts)

    @property
    def facts(self) -> dict:
        """What its folds depend on, as the document holds it."""
        return to_json(
            {"settings": self.settings, "control_settings": self.control or self.settings}
        )


CLASSES = (
    Subject(table="breast_cancer"),
    Subject(table="wine"),
    Subject(table="digits"),
    Subject(
        table="digits",
        labelled=0.1,
        settings=Settings(max_epochs=15, lr=0.003, label_weight=0.5),
        control=Settings(batch_size=16, lr=0.003, dropout=0.4),
    ),
    Subject(
        table="breast_cancer",
        wrong=0.2,
        settings=Settings(max_epochs=8, label_weight=0.1),
        control=Settings(max_epochs=8, lr=0.003, weight_decay=1.0),
    ),
)
NUMBERS = (
    Subject(
        table="diabetes",
        is_numeric=True,
        settings=Settings(max_epochs=30, lr=0.003, label_weight=0.1),
        control=Settings(max_epochs=30, lr=0.001, dropout=0.5),
    ),
    Subject(
        table="friedman1",
        is_numeric=True,
        settings=Settings(max_epochs=30, dropout=0.0, label_weight=0.5),
        num_trees=50,
        num_folds=1,
    ),
)


def fold_data(subject: Subject, seed: int, number: int) -> Data:
    """Make data of one fold of a repetition.

    Wrong labels are wrong in training and validation; those that are reported on are true.
    """
    inputs, labels = _loaded(subject.table)
    learnt, reported = list(folds(labels, seed))[number]
    rng = np.random.default_rng((seed, number))
    given = labels.copy()
    if subject.wrong:
        num_classes = int(labels.max()) + 1
        wrong = learnt[rng.random(len(learnt)) < subject.wrong]
        given[wrong] = (given[wrong] + rng.integers(1, num_classes, len(wrong))) % num_classes
    unlabelled = learnt[:0]
    if subject.labelled < 1:
        learnt, unlabelled = train_test_split(
            learnt, train_size=subject.labelled, stratify=labels[learnt], random_state=seed
        )
    columns = {f"x{at}": pa.array(values) for at, values in enumerate(inputs.T)}
    whole = pa.table(columns | {"target": pa.array(given)})
    choice = Choice(
        label="target",
        task="regression" if subject.is_numeric else "classification",
        validation_fraction=VALIDATION,
        seed=seed,
    )
    rows = pa.array(np.concatenate([learnt, reported]))
    data = from_table(whole.take(rows), subject.table, choice, num_first=len(learnt))
    if not len(unlabelled):
        return data
    return with_unlabelled(data, whole.take(pa.array(unlabelled)), len(rows))


def _loaded(name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Load inputs, [N, F], and labels, [N]; Friedman's first function has noise of deviation 1."""
    if name == "friedman1":
        return datasets.make_friedman1(20_000, noise=1.0, random_state=0)
    return getattr(datasets, f"load_{name}")(return_X_y=True)
