"""Put together: is the model still worth what it was, how is that known, and what is to be done.

Knows the world and what was seen of it; knows nothing of logs or pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distill.production.monitoring import audit, label_free
from distill.production.monitoring.comparison import (
    Changed,
    compare,
    features_of_answers,
    features_of_columns,
    features_of_images,
)
from distill.production.monitoring.decay import Decay, Window, fit_decay
from distill.production.monitoring.observation import Seen, stacked_inputs
from distill.production.monitoring.space import space_of
from distill.production.monitoring.triggers import Known, Rules, Trigger, triggers
from distill.production.monitoring.world import World
from distill.production.prediction_log.reader import SkewCount
from distill.production.prediction_log.scope import DAY
from distill.statistics.metrics import fit_temperature, log_softmax

Numbers = NDArray[np.floating]
Yes = NDArray[np.bool_]

MIN_AGREED = 30  # rows that both answered, before an agreement says anything
NUM_EXAMPLES = 12


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that somebody should look at.

    Attributes:
        id: of the prediction.
        said: the model's class, and how sure it was.
        teacher: its class, and how sure it was.
    """

    id: str
    said: tuple[str, float]
    teacher: tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `monitor` says.

    Attributes:
        since, until: of the window; UTC in seconds since 1970.
        age_days: of the model, since its first answer.
        num_rows: of the window; `num_drawn` of them were looked at.
        num_labels: known in its whole life, about; `num_labels_read` of them were looked at.
        metric: of the task, in which it is told how good the model is.
        reference: on the test set.
        audited: by labels of a random slice, in the window; None without any.
        audit: how that slice came to be.
        label_free: by estimates that see no labels, by their names; of classes alone.
        bounds: of accuracy, by the teacher's error on audited rows; None where that is not known.
        teacher_accuracy: on the audited rows of the window.
        changes: those first that matter most.
        together: of what points those are that look at all at once, for people.
        skew: share of the rows looked at with what the model's training has never seen.
        skews: values that are gaps or new categories, by column, in requests to any model.
        windows, decay: of the model's whole life.
        baseline: what it must beat, and how good that is on the test set.
        triggers: every rule, and whether it fires.
        cannot_know: what nobody can tell from this, for people.
        examples: where teacher and model disagree most surely.
    """

    since: float
    until: float
    age_days: float
    num_rows: int
    num_drawn: int
    num_labels: int
    num_labels_read: int
    metric: str
    reference: float
    audited: audit.Audited | None
    audit: str | None
    label_free: dict[str, label_free.LabelFree]
    bounds: tuple[float, float] | None
    teacher_accuracy: float | None
    changes: list[Changed]
    together: str
    skew: float
    skews: list[SkewCount]
    windows: list[Window]
    decay: Decay | None
    baseline: tuple[str, float] | None
    triggers: list[Trigger]
    cannot_know: list[str]
    examples: list[Example] = field(default_factory=list)

    @property
    def asks(self) -> str | None:
        """For what it asks: `retrain`, `investigate` or nothing."""
        fired = {t.asks for t in self.triggers if t.fires and t.held is None}
        return "retrain" if "retrain" in fired else "investigate" if fired else None

    @property
    def held(self) -> list[Trigger]:
        """Rules that would have it trained again now, and may not."""
        return [t for t in self.triggers if t.fires and t.held is not None]


def report(
    world: World,
    seen: Seen,
    rules: Rules,
    *,
    rate: float,
    window_days: float,
    num_retrainings: int = 0,
    confidence: float = 0.95,
) -> Report:
    """Conclude.

    Args:
        world: that the model was made in.
        seen: of it since.
        rules: what fires.
        rate: chance that drift is told in an unchanged world.
        window_days: of a point of the decay curve.
        num_retrainings: in the rules' `budget_days`.
        confidence: of intervals.
    """
    answers, metric = seen.answers, world.scoring.metric
    opinion = _opinion(seen, [row.id for row in seen.rows], answers.argmax(axis=1))
    estimates = _label_free(world, answers, opinion, confidence) if world.tells_classes else {}
    audited, teacher_accuracy = _audited(world, seen, opinion, confidence)
    bounds = None
    if opinion is not None and teacher_accuracy is not None:
        bounds = label_free.agreement_bounds(opinion.agree[opinion.known], 1 - teacher_accuracy)
    changes, together = _changes(world, seen, answers, rate)
    windows = _windows(world, seen, window_days)
    baseline = world.baseline
    age = (seen.until - seen.first) / DAY
    skew = sum(row.odd in ("own", "both") for row in seen.rows) / len(seen.rows)
    by_teacher = estimates.get("disagreement")
    known_now = Known(
        age_days=age,
        reference=world.reference,
        metric=metric,
        audited=None if audited is None else audited.interval,
        estimated=None if by_teacher is None else by_teacher.interval,
        drifted=tuple(dict.fromkeys(one.name for one in changes if one.stands_out)),
        skew=skew,
        num_new_labels=seen.labels.num_known,
        num_retrainings=num_retrainings,
    )
    return Report(
        since=seen.since,
        until=seen.until,
        age_days=age,
        num_rows=seen.num_rows,
        num_drawn=len(seen.rows),
        num_labels=seen.labels.num_known,
        num_labels_read=seen.labels.num_read,
        metric=metric,
        reference=world.reference,
        audited=audited,
        audit=seen.labels.how,
        label_free=estimates,
        bounds=bounds,
        teacher_accuracy=teacher_accuracy,
        changes=changes,
        together=together,
        skew=skew,
        skews=list(seen.skews),
        windows=windows,
        decay=fit_decay(
            windows,
            floor=world.floor,
            baseline=baseline and baseline[1],
            is_error=world.scoring.is_error,
        ),
        baseline=baseline,
        triggers=triggers(rules, known_now),
        cannot_know=_cannot_know(world, seen, audited, by_teacher is not None),
        examples=[]
        if opinion is None
        else _examples(seen, answers, opinion, world.contract.classes),
    )


@dataclass(frozen=True, kw_only=True)
class _Opinion:
    """What the teacher says of some rows.

    Attributes:
        logits: [n, C]; NaN where it was not asked.
        known: whether it was, [n].
        agree: whether it says what the model says, [n]; false where it was not asked.
    """

    logits: Numbers
    known: Yes
    agree: Yes


def _opinion(seen: Seen, ids: Sequence[str], classes: NDArray[np.int64]) -> _Opinion | None:
    if seen.teacher is None:
        return None
    logits = seen.teacher.logits_of(ids)
    known = np.asarray(~np.isnan(logits).any(axis=1))
    if not known.any():
        return None
    same = np.nan_to_num(logits).argmax(axis=1) == classes
    return _Opinion(logits=logits, known=known, agree=np.asarray(known & same))


def _label_free(
    world: World, logits: Numbers, opinion: _Opinion | None, confidence: float
) -> dict[str, label_free.LabelFree]:
    given = world.answers, world.right, logits
    found = {
        "confidence": label_free.confidence_based(*given, confidence=confidence),
        "threshold": label_free.threshold_based(*given, confidence=confidence),
    }
    if opinion is None or world.teacher is None or opinion.known.sum() < MIN_AGREED:
        return found
    asked, temperature = opinion.known, fit_temperature(world.teacher, world.truth.labels)
    before, now = (
        label_free.chance_of(teacher / temperature, model.argmax(axis=1))
        for teacher, model in (
            (world.teacher, world.answers),
            (opinion.logits[asked], logits[asked]),
        )
    )
    by_teacher = label_free.disagreement_based(world.right, before, now, confidence=confidence)
    return {"disagreement": by_teacher, **found}


def _audited(
    world: World, seen: Seen, opinion: _Opinion | None, confidence: float
) -> tuple[audit.Audited | None, float | None]:
    """How good in the window, by labels and the teacher; and the teacher's own accuracy."""
    rows = seen.audit
    if rows is None:
        return None, None
    alone = audit.scored(world.scoring, rows.answers, rows.truths, confidence=confidence)
    by_labels = audit.Audited(
        estimate=alone.estimate, interval=alone.interval, num_labels=len(rows)
    )
    own = _opinion(seen, rows.names, rows.answers) if opinion is not None else None
    if own is None or opinion is None:
        return by_labels, None
    of_teacher = own.logits[own.known].argmax(axis=1) == rows.truths[own.known]
    teacher = float(of_teacher.mean())
    if not own.known.all():  # those that could not be asked are no random part
        return by_labels, teacher
    labelled = set(rows.names)
    others = opinion.known & np.array([row.id not in labelled for row in seen.rows])
    right = rows.answers == rows.truths
    return audit.audited(right, own.agree, opinion.agree[others], confidence=confidence), teacher


def _changes(world: World, seen: Seen, answers: Numbers, rate: float) -> tuple[list[Changed], str]:
    """Tell what has changed, and of what points all of it together was compared."""
    asks = world.contract.asks
    features = features_of_answers(world.figures["models"][world.artefact.name], asks, answers)
    inputs = stacked_inputs(world, seen.rows)
    rows = inputs[0] if inputs is not None and inputs[1].all() else None
    if rows is not None:
        table = world.contract.table
        figures = world.figures["inputs"]
        if table is not None:
            features += features_of_columns(figures, table.columns, rows)
        elif rows.ndim == 4 and "brightness" in figures:
            features += features_of_images(figures, rows)
    space = space_of(world, answers, rows)
    spaces = [(space.name, space.reference, space.now)]
    goodness = np.exp(log_softmax(answers).max(axis=1)) if world.tells_classes else None
    return compare(features, spaces, rate=rate, goodness=goodness), space.told


def _windows(world: World, seen: Seen, days: float) -> list[Window]:
    audited = seen.labels.audit
    if audited is None:
        return []
    places = ((audited.times - seen.first) / DAY // days).astype(np.int64)
    found = []
    for place in np.unique(places[places >= 0]).tolist():
        rows = seen.labels.even(audited.take(places == place))
        own = audit.scored(world.scoring, rows.answers, rows.truths)
        found.append(
            Window(
                age_days=(place + 0.5) * days,
                estimate=own.estimate,
                interval=own.interval,
                count=len(rows),
            )
        )
    return found


def _cannot_know(
    world: World, seen: Seen, audited: audit.Audited | None, has_teacher: bool
) -> list[str]:
    found = list(seen.lost)
    if audited is None:
        found.append(
            "Whether what is right has changed while inputs have not (concept drift): no estimate "
            "without labels sees that. `feedback select` draws a random slice to label."
        )
    if not world.tells_classes:
        what = "numbers" if world.scoring.is_error else "several labels"
        found.append(
            f"How good it is without labels, or by what a teacher says: not for {what}; these "
            "estimates (CBPE, ATC, disagreement) are of classes alone."
        )
    elif not has_teacher:
        found.append(
            "What the teacher thinks: none answered. `teacher.path=` takes its ONNX file, or its "
            "answers as `soft_labels data=prediction_log` writes them."
        )
    if world.contract.series is not None:
        found.append(
            "How sure that is: windows of a series overlap, so their errors are alike, and "
            "intervals are narrower than they should be."
        )
    if any(row.input is None for row in seen.rows):
        found.append("Whether inputs have drifted: the log keeps none (`log.inputs=keep`).")
    return found


def _examples(
    seen: Seen, logits: Numbers, opinion: _Opinion, classes: Sequence[str]
) -> list[Example]:
    """Rows of which the teacher is surest that the model is wrong."""
    differ = np.flatnonzero(opinion.known & ~opinion.agree)
    own, theirs = (np.exp(log_softmax(o[differ])) for o in (logits, opinion.logits))
    surest = np.argsort(-theirs.max(axis=1, initial=0), kind="stable")[:NUM_EXAMPLES]

    def told(chances: Numbers) -> tuple[str, float]:
        return str(classes[int(chances.argmax())]), float(chances.max())

    return [
        Example(id=seen.rows[differ[at]].id, said=told(own[at]), teacher=told(theirs[at]))
        for at in surest
    ]
