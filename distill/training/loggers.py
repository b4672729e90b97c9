"""Lightning's MLflow logger, for servers that come and go.

One that goes costs the curves, never the training. Knows nothing of what is logged.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from distill.redaction import without_passwords

log = logging.getLogger(__name__)


class ForgivingMLFlowLogger(MLFlowLogger):
    """Logs to MLflow until the server fails for the first time, says so, and goes on without it.

    A database takes no files: they go to `mlruns` where the command was started, by its absolute
    path, so that they are found from elsewhere, too.

    Args:
        experiment_name: made if it is not there.
        run_name: of each training.
        tracking_uri: of a server or database.
    """

    def __init__(self, experiment_name: str, run_name: str, tracking_uri: str) -> None:
        at_server = tracking_uri.startswith(("http://", "https://"))
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name,
            tracking_uri=tracking_uri,
            artifact_location=None if at_server else str(Path("mlruns").resolve()),
        )
        self._lost = False

    @property
    def experiment(self) -> Any:
        """MLflow's client, its run begun; None without a server."""
        return self._forgiven(lambda: super(ForgivingMLFlowLogger, self).experiment)

    @property
    def name(self) -> str | None:
        """Of the experiment, by its id; None without a server."""
        return self._forgiven(lambda: self.experiment_id)

    @property
    def version(self) -> str | None:
        """Of the run; None without a server."""
        return self._forgiven(lambda: self.run_id)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log figures of a step."""
        self._forgiven(lambda: MLFlowLogger.log_metrics(self, metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        """Log settings."""
        self._forgiven(lambda: MLFlowLogger.log_hyperparams(self, params))

    def finalize(self, status: str = "success") -> None:
        """End the run."""
        self._forgiven(lambda: MLFlowLogger.finalize(self, status))

    def _forgiven(self, call: Callable[[], Any]) -> Any:
        if self._lost:
            return None
        try:
            return call()
        except Exception as error:  # whatever a server thinks of, an hour of training outweighs it
            if not self._lost:  # a call within this one may have said it
                self._lost = True
                reason = without_passwords(str(error).splitlines()[0][:200])
                log.warning("MLflow does not answer (%s): the training goes on.", reason)
            return None
