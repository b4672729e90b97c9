"""A device at the other end of ssh as a target: a Raspberry Pi, a server, a virtual machine.

It needs an ssh server and Python 3.9 there, and neither pip nor root nor a network.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.deployment.bundle import write_bundle
from distill.deployment.device import probe
from distill.deployment.measurement import (
    Measurement,
    Result,
    TargetReport,
    make_plan,
    summarise,
)
from distill.deployment.targets.address import Address, find_answer, run_program
from distill.deployment.targets.connection import Connection
from distill.deployment.targets.facts import DeviceFacts
from distill.deployment.targets.stream import has_figures, run_runner
from distill.errors import UserError
from distill.files import from_json

PROBE_SECONDS = 120.0  # importing onnxruntime from a slow card takes a while
BYTES_PER_SECOND = 100_000.0  # of a connection so slow that one gives up
SLACK_BYTES = 20_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SshTarget:
    """A device that ssh logs in to, with a key, without a password.

    Attributes:
        name: in reports.
        host: a name, an address or an entry of the ssh configuration, also with `user@`.
        port: None takes the ssh configuration's, or 22.
        python: the Python there, a name or a path.
        num_threads: that an inference may use.
        pin: whether to stay on as many CPUs as threads.
        spin: whether idle threads burn their CPU, as in the deployment.
        ssh_config: a file instead of the user's own ssh configuration.
        connect_seconds: after which the device counts as unreachable.
        download: whether pip may fetch numpy and onnxruntime for the device where it lacks them.
        wheels: a folder with their wheels instead.

    Raises:
        UserError: an address that cannot be one.
    """

    name: str
    host: str
    port: int | None = None
    python: str = "python3"
    num_threads: int = 1
    pin: bool = True
    spin: bool = True
    ssh_config: str | None = None
    connect_seconds: float = 10
    download: bool = False
    wheels: str | None = None

    def __post_init__(self) -> None:
        _ = self.address

    @property
    def address(self) -> Address:
        """Where the device is."""
        return Address(
            host=self.host,
            port=self.port,
            python=self.python,
            ssh_config=self.ssh_config,
            connect_seconds=self.connect_seconds,
        )

    def measure(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], measurement: Measurement
    ) -> TargetReport:
        """Measure artefacts, see `Target`; what a device had done before it was lost is kept.

        Raises:
            UserError: the device is not reached, cannot run the bundle, or measures nothing.
        """
        measurement.progress(f"connecting to {self.host}")
        facts = self.probe()
        facts.check(self.host, self.num_threads)
        facts.check_runtime(self.host, measurement.runtime.name)
        site = facts.site(wheels=Path(self.wheels) if self.wheels else None, download=self.download)
        plan = make_plan(
            artefacts, measurement, num_threads=self.num_threads, pin=self.pin, spin=self.spin
        )
        kept = f"{facts.cache}/{_kept(site)}"
        with tempfile.TemporaryDirectory(prefix="distill-") as name:
            bundle = Path(name) / "bundle"
            write_bundle(bundle, artefacts, inputs, plan, {kept: site} if site else None)
            results, incomplete = self._run(bundle, site, facts, measurement)
        if not has_figures(results, golden=True):
            raise UserError(
                f"Expected to measure {', '.join(path.name for path in artefacts)} on target "
                f"{self.name} but the measurement failed: {incomplete}"
            )
        self._compare_versions(results)
        return summarise(self.name, artefacts, plan, results, measurement, incomplete=incomplete)

    def probe(self) -> DeviceFacts:
        """Ask the device what it is; copies nothing there.

        Raises:
            UserError: it is not reached, lets nobody in, or has no Python that could say so.
        """
        source = Path(probe.__file__).read_text()
        done = run_program(
            self.address,
            source,
            seconds=self.connect_seconds + PROBE_SECONDS,
            task="to say what it is and to import onnxruntime",
            remedy=f"Try `ssh {self.host} {self.python} -c 'import onnxruntime'` by hand, see what "
            "keeps the device busy, or raise `target.connect_seconds`.",
        )
        facts = find_answer(done.stdout, "probe")
        if facts is not None:
            return from_json(DeviceFacts, facts, where="probe")
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(
            f"Expected Python 3.9 or newer as {self.python} on {self.host} but found: {said}. "
            "Install it there, or give its path as `target.python`."
        )

    def _run(
        self, bundle: Path, site: Path | None, facts: DeviceFacts, measurement: Measurement
    ) -> tuple[list[Result], str | None]:
        """Copy what is needed, run the runner, bring its results back."""
        kept = _kept(site) if site else None
        missing = site if kept not in facts.sites else None
        site_bytes = _size(missing) if missing else 0
        facts.check_room(self.host, _size(bundle) + SLACK_BYTES, site_bytes)
        with Connection(self.address) as device:
            measurement.progress(f"copying to {self.host}")
            folder = f"{device.folder}/run"
            device.send(bundle, folder, seconds=_patience(_size(bundle)))
            if missing:
                measurement.progress(f"copying numpy and onnxruntime to {self.host}")
                device.send(missing, f"{facts.cache}/{kept}", seconds=_patience(site_bytes))
            results, incomplete = run_runner(
                device.command(self._runner(folder, f"{facts.cache}/{kept}" if kept else None)),
                progress=measurement.progress,
            )
            if incomplete and device.is_lost():
                incomplete = f"the connection to {self.host} was lost: {incomplete}"
        return results, incomplete

    def _runner(self, folder: str, site: str | None) -> list[str]:
        """Name the words that start the runner in its folder, whatever the login shell is."""
        enter = ["sh", "-c", 'cd -- "$1" && shift && exec "$@"', "sh", folder]
        environment = ["env", "-u", "PYTHONPATH", "-u", "PYTHONSAFEPATH"]
        if site:
            environment.append(f"PYTHONPATH={site}")
        runner = ["-s", "-m", "distill.deployment.device.runner"]
        return [*enter, *environment, self.python, *runner]

    def _compare_versions(self, results: Sequence[Result]) -> None:
        """Say where the device's onnxruntime is another than this machine's."""
        here = version("onnxruntime")
        there = next((r["onnxruntime"] for r in results if r["step"] == "machine"), here)
        if there != here:
            log.warning(
                "%s runs onnxruntime %s and this machine %s: the figures are those of %s",
                self.name,
                there,
                here,
                there,
            )


def _kept(site: Path | None) -> str:
    """Name a folder of numpy and onnxruntime on the device, in its cache."""
    return f"site-{site.name}" if site else ""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _patience(num_bytes: int) -> float:
    return 60 + num_bytes / BYTES_PER_SECOND
