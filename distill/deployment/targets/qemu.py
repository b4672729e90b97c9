"""CPUs that this machine is not, emulated: do artefacts run there, and answer as they do here?

Finds illegal instructions, other answers, and int8 sums that saturate. Knows nothing of speed: a
translated program's time says nothing about a CPU's, so none is taken.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.deployment.bundle import write_bundle
from distill.deployment.compatibility import Answers, Compatibility, answered, unanswered
from distill.deployment.device.runner import read_answer
from distill.deployment.device.step import compare
from distill.deployment.measurement import (
    Measurement,
    Result,
    TargetReport,
    make_plan,
    summarise,
)
from distill.deployment.targets.emulator import Emulator, set_up
from distill.deployment.targets.stream import end_group
from distill.deployment.wheels import own_packages, site_packages
from distill.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QemuTarget:
    """A CPU under user-mode emulation.

    Attributes:
        name: in reports.
        cpu: as QEMU names it: cortex-a72, cortex-a76, Haswell-noTSX.
        architecture: of it, `aarch64` or `x86_64`.
        download: whether emulator and wheels may be fetched if the cache lacks them.
        wheels: a folder with wheels of numpy and onnxruntime; None takes this machine's own for an
            x86-64 CPU, and those that pip fetches for an ARM one.
        seconds: after which an artefact that has not answered is given up.
    """

    name: str
    cpu: str
    architecture: str
    download: bool = False
    wheels: str | None = None
    seconds: float = 300.0

    def check(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], measurement: Measurement
    ) -> Compatibility:
        """Let every artefact answer golden inputs on the emulated CPU, each in its own process.

        Args:
            artefacts: ONNX files with distinct names; the first, in float32, is the reference of
                errors.
            inputs: [K, ...]; the first of them are asked.
            measurement: runtime and progress are used.

        Raises:
            UserError: this machine cannot emulate, or something is missing.
            ModelError: an artefact does not answer here.
        """
        if measurement.runtime.name != "onnxruntime":
            raise UserError(
                f"Expected `runtime=onnxruntime` on target {self.name} but got "
                f"{measurement.runtime.name}: only onnxruntime is there under emulation."
            )
        emulator = set_up(
            self.architecture, self.cpu, download=self.download, progress=measurement.progress
        )
        site = self._site(emulator)
        plan = self._plan(artefacts, measurement)
        with tempfile.TemporaryDirectory(prefix="distill-") as name:
            folder = Path(name)
            write_bundle(folder, artefacts, inputs, plan)
            errors = _errors_here(folder / "golden.npz", [path.name for path in artefacts])
            rows = []
            for entry, error in zip(plan["contenders"], errors, strict=True):
                measurement.progress(f"{entry['name']} answers on an emulated {self.cpu}")
                request = {**plan, **entry, "step": "golden", "reference": artefacts[0].name}
                rows.append(self._asked(emulator, site, folder, request, error))
        found = {d.metadata["Name"]: d.version for d in distributions(path=[str(site)])}
        return Compatibility(
            target=self.name,
            cpu=self.cpu,
            architecture=self.architecture,
            rows=tuple(rows),
            versions={"qemu": emulator.qemu, "python": emulator.python_version, **found},
        )

    def measure(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], measurement: Measurement
    ) -> TargetReport:
        """Report golden answers as a target does; every latency, and memory, is unknown.

        Raises:
            UserError: see `check`.
        """
        found = self.check(artefacts, inputs, measurement)
        golden = [
            {"step": "golden", "name": row.artefact, **asdict(row)}
            for row in found.rows
            if row.num_samples
        ]
        dead = [f"{row.artefact}: {row.reason}" for row in found.rows if not row.num_samples]
        report = summarise(
            self.name,
            artefacts,
            self._plan(artefacts, measurement),
            golden,
            measurement,
            incomplete="; ".join(dead) or None,
        )
        machine = {
            "system": f"emulated by QEMU {found.versions['qemu']}",
            "architecture": self.architecture,
            "processor": f"{self.cpu} (emulated: no latency is measured)",
            "libc": None,
            **found.versions,
        }
        return replace(report, conditions={**report.conditions, "machine": machine})

    def _site(self, emulator: Emulator) -> Path:
        if self.architecture == "x86_64" and self.wheels is None:
            return own_packages()
        return site_packages(
            self.architecture,
            emulator.python_version,
            wheels=None if self.wheels is None else Path(self.wheels),
            download=self.download,
        )

    def _plan(self, artefacts: Sequence[Path], measurement: Measurement) -> Result:
        plan = make_plan(artefacts, measurement, num_threads=1, pin=False, spin=False)
        return plan | {"golden": True}

    def _asked(
        self,
        emulator: Emulator,
        site: Path,
        folder: Path,
        request: Result,
        error_here: float | None,
    ) -> Answers:
        """Run the golden step of one artefact."""
        foreign = ("PYTHON", "LD_PRELOAD")
        own = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        code, out, errors = _run(
            [*emulator.command, "-m", "distill.deployment.device.step"],
            json.dumps(request),
            cwd=folder,
            environment={**own, **emulator.environment, "PYTHONPATH": str(site)},
            seconds=self.seconds,
        )
        name = request["name"]
        if code is None:
            return unanswered(
                name, f"no answer within {self.seconds:g} s; give it more `seconds`", illegal=False
            )
        if code in (-signal.SIGILL, 128 + signal.SIGILL):
            return unanswered(name, _last_line(errors) or "SIGILL", illegal=True)
        try:
            result, reason = read_answer(code, out, errors)
        except (ValueError, TypeError):  # not JSON, or a number
            result, reason = {}, ""
        if result is not None and "error_vs_reference" not in result:
            result, reason = None, f"it said {_last_line(out)[:80]!r} instead of an answer"
        if result is None:
            return unanswered(name, reason, illegal=False)
        return answered(name, result, error_here=error_here)


def _errors_here(golden: Path, names: Sequence[str]) -> list[float | None]:
    """Error of each artefact's answers on this machine, against the first one's."""
    with np.load(golden, allow_pickle=False) as arrays:
        outputs = [arrays[f"output/{name}"] for name in names]
    return [
        compare(own, outputs[0])["output_std"] if own.shape == outputs[0].shape else None
        for own in outputs
    ]


def _run(
    command: Sequence[str], said: str, *, cwd: Path, environment: dict[str, str], seconds: float
) -> tuple[int | None, str, str]:
    """Run a program to its end, or end it and what it started; None instead of a code then."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(
            f"Expected the emulator {command[0]} but found: {error.strerror}. Delete "
            f"{Path(command[0]).parent} to have it set up again."
        ) from error
    with process:
        try:
            out, errors = process.communicate(said, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None, "", ""
        finally:
            end_group(process)
    return process.returncode, out, errors


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
