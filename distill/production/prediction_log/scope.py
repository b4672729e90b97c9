"""Which rows a question is about, and how they are joined with what turned out.

Knows nothing of the questions.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from distill.production.prediction_log.records import Role
from distill.production.prediction_log.schema import PREDICTIONS

DAY = 86_400.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which predictions are meant; None never narrows.

    Attributes:
        experiment: its name.
        stage: a step of the ramp, within which weights are constant.
        since: UTC, in seconds since 1970; inclusive.
        until: exclusive; of feedback, too, so that a count can be had again.
        model: its name.
        artefact: sha256 of the file that answered.
        role: in which it answered.
    """

    experiment: str | None = None
    stage: str | None = None
    since: float | None = None
    until: float | None = None
    model: str | None = None
    artefact: str | None = None
    role: Role | None = None

    def of(self, table: Any = PREDICTIONS) -> list[sa.ColumnElement[bool]]:
        """Say so of a table, or of an alias, as far as it has such columns."""
        wanted = [
            table.c[column] == value
            for column, value in (
                ("experiment", self.experiment),
                ("stage", self.stage),
                ("model", self.model),
                ("artefact_sha256", self.artefact),
                ("role", self.role),
            )
            if value is not None and column in table.c
        ]
        if self.since is not None:
            wanted.append(table.c.time >= self.since)
        if self.until is not None:
            wanted.append(table.c.time < self.until)
        return wanted

    def said(
        self, feedback: Any, name: str, prediction: sa.ColumnElement[str] = PREDICTIONS.c.id
    ) -> sa.ColumnElement[bool]:
        """Join what was said of a prediction under one name, as far as it was said in time."""
        wanted = (feedback.c.prediction == prediction) & (feedback.c.name == name)
        return wanted if self.until is None else wanted & (feedback.c.time < self.until)


def count_of(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Count the rows of a group for which something holds; unknown does not."""
    return sa.func.count(sa.case((condition, 1)))
