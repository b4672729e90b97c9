"""This machine as a target."""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.deployment.bundle import write_bundle
from distill.deployment.device.machine import processor
from distill.deployment.measurement import (
    Measurement,
    TargetReport,
    make_plan,
    summarise,
)
from distill.deployment.targets.stream import has_figures, run_runner
from distill.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LocalTarget:
    """This machine, in processes of their own that hold nothing but the runner and the models.

    Attributes:
        name: in reports.
        num_threads: that an inference may use.
        pin: whether to stay on as many CPUs as threads.
        spin: whether idle threads burn their CPU, as in the deployment.
    """

    name: str
    num_threads: int = 1
    pin: bool = True
    spin: bool = True

    @property
    def hardware(self) -> str | None:
        """The processor, without which what was measured is another measurement."""
        return processor()

    def measure(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], measurement: Measurement
    ) -> TargetReport:
        """Measure artefacts, see `Target`; what was measured before a step failed is kept.

        Raises:
            UserError: a step fails before anything was measured.
        """
        available = len(os.sched_getaffinity(0))
        if self.num_threads > available:
            raise UserError(
                f"Expected {self.num_threads} CPUs for target {self.name} but this process may use "
                f"{available}. Lower `target.num_threads`."
            )
        plan = make_plan(
            artefacts,
            measurement,
            num_threads=self.num_threads,
            pin=self.pin,
            spin=self.spin,
        )
        with tempfile.TemporaryDirectory(prefix="distill-") as name:
            write_bundle(Path(name), artefacts, inputs, plan)
            # -P would hide the bundle's own sources; user packages and PYTHONPATH stay out.
            results, incomplete = run_runner(
                [sys.executable, "-s", "-m", "distill.deployment.device.runner"],
                progress=measurement.progress,
                cwd=name,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            )
        if not has_figures(results):
            raise UserError(
                f"Expected to measure {', '.join(path.name for path in artefacts)} on target "
                f"{self.name} but the measurement failed: {incomplete}"
            )
        return summarise(self.name, artefacts, plan, results, measurement, incomplete=incomplete)
