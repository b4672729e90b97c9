"""Backtesting of a series: everything fitted and trained anew at several forecast origins.

Tashman, "Out-of-sample tests of forecasting accuracy: an analysis and review", 2000. One test set
is one stretch of time; whether a model is better than a naive forecast at other times, too, only
other stretches tell.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from distill.deployment.naive import NAIVE
from distill.errors import UsageError
from distill.verbs.baseline import baseline_stage
from distill.verbs.learning.roles import ROLES, train_roles
from distill.verbs.run.workspace import Workspace, open_workspace

log = logging.getLogger(__name__)

FOLDER = "origins"


def check_origins(workspace: Workspace) -> None:
    """Refuse what cannot be backtested, before anything is trained.

    Raises:
        UsageError: the data are no series, or `origins` is no number from 0 on.
        UserError: there are too few windows for so many.
    """
    from distill.training.data.series import SeriesData, origins

    wanted, data = workspace.cfg.origins, workspace.data
    if not isinstance(wanted, int) or wanted < 0:
        raise UsageError(f"Expected `origins` to be a number of moments, 0 for none, got {wanted}.")
    if wanted and not isinstance(data, SeriesData):
        raise UsageError(
            f"Expected a series to backtest but {data.name} has {data.what}. Set `origins=0`."
        )
    if isinstance(data, SeriesData) and wanted:
        list(origins(data, num_origins=wanted))


def backtest_stage(workspace: Workspace) -> dict[str, Any] | None:
    """Train at `origins` moments, each with what was known by then; None where that is 0.

    The moments lie in the stretch of the test set, which they cut into as many parts; each part is
    answered by models that know all before it.
    """
    from distill.training.data.series import SeriesData, backtests

    data = workspace.data
    if not workspace.cfg.origins:
        return None
    assert isinstance(data, SeriesData)  # `check_origins` has seen to it
    found = [
        _origin(workspace, one, number)
        for number, one in enumerate(backtests(data, num_origins=workspace.cfg.origins), start=1)
    ]
    beaten = [one["student"] < one["best_naive"]["value"] for one in found]
    log.info(
        "backtest: the student has less %s than the best naive forecast at %d of %d origins",
        workspace.scoring.metric,
        sum(beaten),
        len(beaten),
    )
    return {"metric": workspace.scoring.metric, "num_beaten": sum(beaten), "origins": found}


def _origin(workspace: Workspace, data: Any, number: int) -> dict[str, Any]:
    folder = workspace.run_dir / FOLDER / f"{number:02d}"
    cfg = workspace.cfg.copy()
    OmegaConf.update(cfg, "run_dir", str(folder))
    if "path" in cfg.soft_labels:
        OmegaConf.update(cfg, "soft_labels.path", str(Path(folder) / "soft_labels"))
    with open_workspace(cfg, data, trains=True) as own:
        baseline = baseline_stage(own)
        trained = train_roles(own, ROLES)
    metric = workspace.scoring.metric
    values = {name: score[metric]["estimate"] for name, score in baseline["baselines"].items()}
    naive = {name: value for name, value in values.items() if name in NAIVE} or values
    best = min(naive, key=lambda name: naive[name])
    moment = data.pool.origin_times[data.test.indices].min()
    roles = {
        role: (trained[role]["test_at_best_epoch"] or {}).get(metric, {}).get("estimate")
        for role in ROLES
    }
    return {
        "from": str(np.datetime64(int(moment), "ms")),
        "num_windows": len(data.test),
        "best_naive": {"name": best, "value": naive[best]},
        "baselines": values,
        **roles,
    }
