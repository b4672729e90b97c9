"""Answers of one model whose truth is known: in a share of them, or those of an audit, in arrays.

A log in which all of millions of truths are known is read by their ids, and what is not drawn is
not looked at further. Inputs are for `reader.inputs_of`. Knows nothing of what is concluded.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.observed import GIVEN, TIME_DIGITS, drawn_by
from distill.production.prediction_log.records import LABEL, TRUTH
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS
from distill.production.prediction_log.scope import Scope

_P, _F = PREDICTIONS.c, FEEDBACK.c
_IDS_AT_ONCE = 500  # sqlite takes 999 parameters in its older versions
_SLACK_S = 86_400.0  # by which the clock of an id and that of its row may differ
_COLUMNS = ("ids", "times", "answers", "truths")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Predictions whose truth is known, in the order of their ids, without their inputs.

    Attributes:
        ids: of the predictions, [n], ASCII.
        times: of them, UTC in seconds since 1970, [n].
        answers: classes, [n]; of any other task what the model answered, [n, K] float32.
        truths: classes, [n]; of any other task the truth of every output, [n, D] float32.
    """

    ids: NDArray[np.bytes_]
    times: NDArray[np.float64]
    answers: NDArray[Any]
    truths: NDArray[Any]

    def __len__(self) -> int:
        """How many."""
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> "Labelled":
        """Select some rows."""
        return Labelled(
            ids=self.ids[rows],
            times=self.times[rows],
            answers=self.answers[rows],
            truths=self.truths[rows],
        )

    @property
    def names(self) -> list[str]:
        """The ids as the log has them."""
        return self.ids.astype(str).tolist()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What an answer and its truth look like in the log.

    Attributes:
        num_answers: numbers in an answer, K; None where it is one of several classes.
        num_outputs: whose truth has a name of its own, D; None likewise.
    """

    num_answers: int | None = None
    num_outputs: int | None = None

    @property
    def names(self) -> list[str]:
        """Under which the truth was said."""
        return [LABEL] if self.num_outputs is None else _names(self.num_outputs)

    @property
    def width(self) -> int:
        """Numbers that a labelled row holds."""
        return (self.num_answers or 1) + (self.num_outputs or 1)


def count_labels(engine: sa.Engine, scope: Scope, shape: Shape) -> int:
    """Count the truths of predictions from a moment on, of all models, by an index: about.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    after = _F.prediction > _before(scope)
    query = sa.select(sa.func.count()).select_from(FEEDBACK).where(_said(shape), after)
    with talking_to(engine), engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def labelled(
    engine: sa.Engine,
    scope: Scope,
    artefact_sha256: str,
    shape: Shape = Shape(),
    *,
    share: float = 1.0,
    drawn: Callable[[str], bool] | None = None,
    page: int = 50_000,
) -> Labelled:
    """Read answers of a model whose truth is known, all of it.

    Args:
        engine: an open log.
        scope: what of it.
        artefact_sha256: of the model's file.
        shape: of answers and truth.
        share: of them that is read, each with this chance, by random bits of its id.
        drawn: which of them are read, by their ids; None is all.
        page: truths that are looked at at once.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    wanted = [_P.artefact_sha256 == artefact_sha256, _P.role.in_(GIVEN), *scope.of()]
    truth = (
        sa.select(_F.prediction)
        .where(_said(shape), *drawn_by(_F.prediction, share))
        .order_by(_F.prediction)
        .limit(page)
    )
    parts, last = [_nothing(shape)], _before(scope)
    while True:
        with talking_to(engine), engine.connect() as connection:
            seen = connection.execute(truth.where(_F.prediction > last)).scalars().all()
            ids = [one for one in seen if drawn is None or drawn(one)]
            for start in range(0, len(ids), _IDS_AT_ONCE):
                some = ids[start : start + _IDS_AT_ONCE]
                parts.append(_of_ids(connection, some, wanted, shape, scope.until))
        if len(seen) < page:
            break
        last = seen[-1]
    columns = ([getattr(part, name) for part in parts] for name in _COLUMNS)
    together = (np.concatenate(column) for column in columns)
    return Labelled(**dict(zip(_COLUMNS, together, strict=True)))


def _of_ids(
    connection: sa.Connection,
    ids: Sequence[str],
    wanted: Sequence[sa.ColumnElement[bool]],
    shape: Shape,
    until: float | None,
) -> Labelled:
    """Read labelled predictions by their ids, those of the model, that it answered."""
    is_truth = _F.name == LABEL if shape.num_outputs is None else _F.name.startswith(TRUTH)
    said = sa.select(_F.prediction, _F.name, _F.label, _F.value).where(
        _F.prediction.in_(ids), is_truth, *Scope(until=until).of(FEEDBACK)
    )
    truths: dict[str, dict[str, Any]] = defaultdict(dict)
    for prediction, name, label, value in connection.execute(said):
        truths[prediction][name] = value if label is None else label
    answer = _P.label if shape.num_answers is None else _P.output
    query = sa.select(_P.id, _P.time, answer).where(_P.id.in_(ids), *wanted).order_by(_P.id)
    size = None if shape.num_answers is None else 4 * shape.num_answers
    names = shape.names
    rows = [
        (own, moment, given, [truths[own][name] for name in names])
        for own, moment, given in connection.execute(query)
        if given is not None
        and (size is None or len(given) == size)
        and all(name in truths[own] for name in names)
    ]
    if not rows:
        return _nothing(shape)
    found, times, answers, known = zip(*rows, strict=True)
    return Labelled(
        ids=np.array(found, np.bytes_),
        times=np.array(times, np.float64),
        answers=np.array(answers, np.int64)
        if size is None
        else np.frombuffer(b"".join(answers), "<f4").reshape(len(rows), -1),
        truths=np.array(known, np.int64)[:, 0] if size is None else np.array(known, np.float32),
    )


def _names(num_outputs: int) -> list[str]:
    return [f"{TRUTH}{i}" for i in range(num_outputs)]


def _nothing(shape: Shape) -> Labelled:
    classes = np.zeros(0, np.int64)
    return Labelled(
        ids=np.zeros(0, "S30"),
        times=np.zeros(0),
        answers=classes
        if shape.num_answers is None
        else np.zeros((0, shape.num_answers), np.float32),
        truths=classes
        if shape.num_outputs is None
        else np.zeros((0, shape.num_outputs), np.float32),
    )


def _said(shape: Shape) -> sa.ColumnElement[bool]:
    """Tell which feedback is the truth of a prediction, by what the index has."""
    return _F.name == shape.names[0]


def _before(scope: Scope) -> str:
    """Give the end of the ids that come before all that is meant.

    One bound alone: of two, sqlite may begin at the lower one, and read all pages for each page.
    """
    micros = max(int(((scope.since or 0) - _SLACK_S) * 1e6), 0)
    return f"{micros:0{TIME_DIGITS}x}" if micros else ""
