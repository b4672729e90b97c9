"""What production asked, as data: logged inputs beside what the teacher was trained on.

Only a verb may know both wings: the log is production's, the teacher training's.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from distill.contract import check_classes
from distill.dataset_versions import AUDIT
from distill.errors import UserError
from distill.production.feedback.logged import read_inputs
from distill.production.feedback.model import Model, open_model
from distill.production.prediction_log.connection import Engine, open_log, shown
from distill.production.prediction_log.observed import first_answer, sample
from distill.production.prediction_log.queue import reviewed
from distill.production.prediction_log.scope import DAY, Scope
from distill.production.serving.editions import artefact_at
from distill.training.data.feedback import logged_split
from distill.training.data.splits import Data, joined
from distill.verbs.production.registry import champion_path
from distill.verbs.run.numbers import COUNT, POSITIVE, check_numbers


def prediction_log(
    *,
    base: Data,
    url: str,
    artefact: str | None,
    registry: Mapping[str, Any],
    window_days: float,
    num_rows: int,
) -> Data:
    """Put logged inputs beside the data that a teacher was trained on, as rows without labels.

    Those are drawn that `monitor` draws, and the audit's: whoever estimates an accuracy from a
    teacher needs its opinion of both.

    Args:
        base: of the teacher.
        url: of the log.
        artefact: whose predictions, an ONNX file or an export folder; None is the champion.
        registry: where that is.
        window_days: that are looked back.
        num_rows: drawn from the window.

    Raises:
        UsageError: a number is none.
        UserError: there is nothing of this model, or its inputs or classes are not the data's.
    """
    given = OmegaConf.create({"data": {"window_days": window_days, "num_rows": num_rows}})
    check_numbers(given, {"data.window_days": POSITIVE, "data.num_rows": COUNT})
    if artefact is None:
        path = champion_path(OmegaConf.create({"registry": dict(registry)}))
    else:
        path = artefact_at(Path(artefact)).path
    model = open_model(path)
    check_classes(base.classes, model.classes, str(path))
    engine = open_log(url, new=False)
    try:
        ids, inputs = _drawn(engine, model, window_days, num_rows)
    finally:
        engine.dispose()
    rows = logged_split(base, inputs, np.full(len(ids), 0), where=shown(engine.url))
    unlabelled = rows if base.unlabelled is None else joined(base.unlabelled, rows)
    return dataclasses.replace(base, unlabelled=unlabelled, logged=np.array(ids, np.str_))


def _drawn(
    engine: Engine, model: Model, window_days: float, num_rows: int
) -> tuple[list[str], NDArray[Any]]:
    now = time.time()
    since = now - window_days * DAY
    first = first_answer(engine, now, model.sha256)
    scope = Scope(since=max(since, first or since), until=now)  # as `monitor` looks
    drawn = [row.id for row in sample(engine, scope, model.sha256, wanted=num_rows)]
    queue = reviewed(engine, model.classes_sha256, inputs=False)
    audit = [
        row.item.prediction
        for row in queue
        if row.item.split == AUDIT
        and row.prediction.artefact_sha256 == model.sha256
        and since <= row.prediction.time < now
    ]
    ids, inputs = [], []
    for known, rows in read_inputs(engine, list(dict.fromkeys([*drawn, *audit]))):
        ids += known
        inputs += rows
    if not ids:
        raise UserError(
            f"Expected logged inputs of {model.path} ({model.sha256[:12]}) in the last "
            f"{window_days:g} days but found none. Serve it with this log and `log.inputs=keep`, "
            "or look back further: `data.window_days=`."
        )
    return ids, model.inputs(inputs)
