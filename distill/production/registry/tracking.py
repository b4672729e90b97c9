"""One finished pipeline as one MLflow run: settings, figures, report and artefacts.

Knows nothing of training, whose curves Lightning logs, nor of versions.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.production.registry.connection import connect, talking_to

_PER_CALL, _LENGTH = 100, 500  # MLflow's limits on parameters


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is kept of a pipeline.

    Attributes:
        experiment: made if it is not there.
        name: of the run.
        settings: nested, their secrets redacted.
        figures: name to number.
        tags: name to text.
        files: kept as they are; a folder with all that is in it.
    """

    experiment: str
    name: str
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    tags: Mapping[str, str]
    files: tuple[Path, ...]


def keep(uri: str, record: Record, artefacts: Path) -> str:
    """Write a record and return its run id.

    Args:
        uri: of the tracking server or database.
        record: what is kept.
        artefacts: where a bare database, which has no server to take files, has them put.

    Raises:
        UnreachableError: the server does not answer.
    """
    client = connect(uri)
    with talking_to(uri):
        from_before = client.get_experiment_by_name(record.experiment)
        if from_before is None:
            own = None if uri.startswith("http") else str(artefacts.resolve())
            experiment = client.create_experiment(record.experiment, artifact_location=own)
        else:
            experiment = from_before.experiment_id
        run_id = client.create_run(
            experiment, run_name=record.name, tags=dict(record.tags)
        ).info.run_id
        _log_values(client, run_id, record)
        for path in record.files:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), path.name)
            else:
                client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
        return run_id


def _log_values(client: Any, run_id: str, record: Record) -> None:
    from mlflow.entities import Metric, Param

    now = int(1000 * time.time())
    metrics = [Metric(name, value, now, 0) for name, value in record.figures.items()]
    params = [Param(name, value) for name, value in flat(record.settings).items()]
    client.log_batch(run_id, metrics=metrics)
    for start in range(0, len(params), _PER_CALL):
        client.log_batch(run_id, params=params[start : start + _PER_CALL])


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Name nested settings with dots, as MLflow wants its parameters."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = str(value)[:_LENGTH]
    return found
