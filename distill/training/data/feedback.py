"""Data that production adds to: labelled rows of its log beside what the model was trained on.

Chosen rows are learnt from, the audit's rows judge, and what was the test set before becomes a
guardrail. Knows dataset versions; knows nothing of the log.
"""

import dataclasses
import logging
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.audit import MIN_ROWS, evenly
from distill.contract import check_classes
from distill.dataset_versions import AUDIT, NO_LABEL, newest, read_version, versions
from distill.errors import UsageError, UserError
from distill.tables.encoding import Encoder
from distill.tasks import TaskKind
from distill.training.data.splits import Data, Split, chunks, joined

log = logging.getLogger(__name__)


def feedback(
    *,
    base: Data,
    version: str,
    share: float | None = None,
    validation_fraction: float = 0.15,
    seed: int = 0,
) -> Data:
    """Put a dataset version beside the data that there were before.

    Rows that people labelled, or whose truth turned out, join the training set and the validation
    set; those that a proven teacher answered alone are rows without labels, of which the run's
    teacher says again what they are. The audit's rows are the test set: a simple random sample of
    what the model was asked. Rows that could flatter are left out: chosen ones that are in the old
    test set, and audited ones that were trained on.

    Args:
        base: what the model was trained and tested on.
        version: folder of a version that `feedback collect` wrote, or of all of them: the newest.
        share: of the labelled rows that are shown in training, that is new; None shows each once.
        validation_fraction: of the chosen rows.
        seed: of that split.

    Returns:
        The data, `old_test` among them.

    Raises:
        UsageError: a share is none.
        UserError: the version is damaged, has other classes or inputs, or too few rows of an audit.
    """
    _check_share("share", share)
    _check_share("validation_fraction", validation_fraction)
    path = newest(Path(version))
    rows, manifest = read_version(path)
    whole = logged_split(base, rows.inputs, np.maximum(rows.labels, 0), where=str(path))
    whole = dataclasses.replace(whole, spans=_later(base, rows.times))
    check_classes(base.classes, manifest.get("classes", []), f"the dataset version {path}")

    def part(own: NDArray[np.bool_]) -> Split:
        return whole.take(np.flatnonzero(own))

    prints = _prints(rows.inputs)
    has_label, is_audit = rows.labels != NO_LABEL, rows.splits == AUDIT
    before = _trained_before(path)
    seen = np.isin(prints, [*_known(base.train, base.validation, base.unlabelled), *before])
    known = np.isin(prints, [*_known(base.test)])
    drawn = is_audit & has_label & ~seen
    audit = drawn.copy()
    audit[drawn] = evenly(rows.ids[drawn].tolist(), rows.inclusion_probabilities[drawn])
    losses = _Losses(
        num_in_version=int(is_audit.sum()),
        num_without_label=int((is_audit & ~has_label).sum()),
        num_trained_on=int((is_audit & has_label & seen).sum()),
        num_thinned=int(drawn.sum() - audit.sum()),
    )
    losses.check(path)
    chosen, taught = ~is_audit & has_label & ~known, ~is_audit & ~has_label & ~known
    # By inputs: one that came twice must not choose the epoch of a model that has learnt it.
    different = np.unique(prints[chosen])
    some = np.random.default_rng(seed).permutation(different)
    validates = chosen & np.isin(prints, some[: round(validation_fraction * len(some))])
    learnt = chosen & ~validates
    unlabelled = base.unlabelled
    if taught.any():
        more = part(taught)
        unlabelled = more if unlabelled is None else joined(unlabelled, more)
    log.info(
        "%s: %d rows to learn from, %d to choose the epoch, %d that the teacher labels, %d judge",
        path.name, learnt.sum(), validates.sum(), taught.sum(), audit.sum(),
    )  # fmt: skip
    return dataclasses.replace(
        base,
        name=f"{base.name} and {path.name}",
        train=joined(base.train, part(learnt)),
        validation=joined(base.validation, part(validates)),
        test=part(audit),
        test_is_drawn=False,
        old_test=base.test,
        unlabelled=unlabelled,
        weights=_weights(base, int(learnt.sum()), rows.weights[taught], share),
        remarks=(*base.remarks, *_remarks(is_audit & has_label & seen, ~is_audit & known)),
    )


def _later(base: Data, times: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Give logged rows the moments behind all that there are, one after the other as they came."""
    if base.train.spans is None:
        return None
    last = max(int(own.spans.max()) for own in _parts(base) if own.spans is not None)
    moments = last + 1 + np.argsort(np.argsort(times, kind="stable"))
    return np.stack([moments, moments], axis=1)


def _check_share(name: str, value: float | None) -> None:
    if value is not None and (not isinstance(value, int | float) or not 0 < value < 1):
        raise UsageError(f"Expected `data.{name}` above 0 and below 1 but got {value}.")


def logged_split(base: Data, inputs: NDArray[Any], labels: NDArray[Any], *, where: str) -> Split:
    """Make samples of logged inputs, numbered behind all that there are.

    Args:
        base: what they stand beside.
        inputs: [N, ...], or records, [N].
        labels: classes, [N].
        where: they come from, for messages.

    Raises:
        UserError: the data are no images or tables of classes, or take other inputs.
    """
    _check_fits(base, inputs, where)
    first = 1 + max(int(own.indices.max()) for own in _parts(base))
    facts: dict[str, Any] = {
        "labels": labels.astype(base.train.labels.dtype),
        "indices": first + np.arange(len(labels)),
    }
    if base.encoder is None:
        return Split(inputs=inputs, **facts)
    assert isinstance(base.encoder, Encoder)
    layout = base.encoder.layout
    return Split(inputs=base.encoder(inputs), records=inputs, layout=layout, **facts)


def _check_fits(base: Data, inputs: NDArray[Any], where: str) -> None:
    if base.task.kind is not TaskKind.CLASSIFICATION or not isinstance(
        base.encoder, Encoder | None
    ):
        raise UserError(
            f"Expected images or a table of classes beside logged inputs but {base.name} has "
            f"{base.what} of {base.task.kind.replace('_', ' ')}: people label classes alone. Give "
            "newer data of your own with their labels instead."
        )
    wanted = base.train.served
    same = inputs.dtype.names == wanted.dtype.names and inputs.shape[1:] == wanted.shape[1:]
    if not same or (inputs.dtype.names is None and inputs.dtype != wanted.dtype):
        raise UserError(
            f"Expected inputs of {base.name} in {where}, {_form(wanted)}, but found "
            f"{_form(inputs)}. Name the data that the model was trained on: `data@data.base=`."
        )


def _form(inputs: Any) -> str:
    if inputs.dtype.names:
        return f"columns {', '.join(inputs.dtype.names)}"
    return f"{inputs.dtype} {list(inputs.shape[1:])}"


def _weights(
    base: Data, num_new: int, taught: NDArray[np.float64], share: float | None
) -> NDArray[np.float64] | None:
    """Weigh old labelled rows, new ones, and behind them those that the teacher labels.

    None where all weigh the same.
    """
    old = np.ones(len(base.train)) if base.weights is None else base.weights[: len(base.train)]
    new = np.ones(num_new)
    if share is not None and num_new:
        new *= share / (1 - share) * old.sum() / num_new
    labelled = np.concatenate([old, new])
    labelled /= labelled.mean()
    num_before = 0 if base.unlabelled is None else len(base.unlabelled)
    weights = np.concatenate([labelled, np.ones(num_before), taught])
    return None if np.allclose(weights, 1) else weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Losses:
    """Where the rows of an audit go that do not judge."""

    num_in_version: int
    num_without_label: int
    num_trained_on: int
    num_thinned: int

    def check(self, path: Path) -> None:
        """Refuse an audit that decides nothing; say what it has lost, and what to do about it."""
        lost = {
            "have no label": self.num_without_label,
            "have inputs that the model was trained on": self.num_trained_on,
            "are thinned out, to the smallest `audit_share` among them": self.num_thinned,
        }
        count = self.num_in_version - sum(lost.values())
        if count >= MIN_ROWS:
            return
        told = ", ".join(f"{number:,} {why}" for why, number in lost.items() if number)
        told = f" of {self.num_in_version:,} ({told})" if told else ""
        later = (
            " Or collect with `looking.days=`, no further back than the present share."
            if self.num_thinned
            else ""
        )
        raise UserError(
            f"Expected {MIN_ROWS} labelled rows of the audit in {path} at least but found "
            f"{count}{told}: a retrained model is judged on them, since rows that were chosen are "
            "not like the others. Raise `looking.audit_share` of `feedback select`, which holds "
            f"from then on, label what it draws, and collect again.{later}"
        )


def _trained_before(path: Path) -> set[str]:
    """Tell what earlier versions train on: the model may begin with weights that learnt it."""
    known = versions(path.parent)
    earlier = known[: known.index(path)] if path in known else []
    found: set[str] = set()
    for one in earlier:
        rows, _ = read_version(one)
        found.update(_prints(rows.take(rows.splits != AUDIT).inputs).tolist())
    return found


def _remarks(trained_on: NDArray[np.bool_], tested_on: NDArray[np.bool_]) -> Iterator[str]:
    if trained_on.any():
        yield (
            f"{trained_on.sum():,} audited rows are left out: the very same inputs are, or were, "
            "trained on."
        )
    if tested_on.any():
        yield (
            f"{tested_on.sum():,} rows are not trained on: the old test set has the very same "
            "inputs."
        )


def _known(*parts: Split | None) -> set[str]:
    """Hash the inputs of some splits."""
    return {
        one
        for own in parts
        if own is not None
        for some in chunks(own.served)
        for one in _prints(some).tolist()
    }


def _prints(inputs: NDArray[Any]) -> NDArray[np.str_]:
    """Hash each input, [N]; records alike whatever the width of their texts."""
    bytes_of = (lambda one: repr(one.item()).encode()) if inputs.dtype.names else np.ndarray.tobytes
    found = [blake2b(bytes_of(one), digest_size=16).hexdigest() for one in inputs]
    return np.array(found, "U32")


def _parts(base: Data) -> list[Split]:
    found = (base.train, base.validation, base.test, base.unlabelled)
    return [own for own in found if own is not None]
