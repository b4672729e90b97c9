"""A bundle for people who carry it to a device themselves, and bring a file of results back.

Everything is in one folder: models, runner, budget, and where the device is known also numpy and
onnxruntime. `targets.carried` reads what comes back.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.budget import Budget
from distill.deployment.bundle import SITE, write_bundle
from distill.deployment.measurement import Measurement, make_plan
from distill.deployment.wheels import site_packages
from distill.errors import UserError
from distill.files import write_json, write_text

RESULTS = "results.jsonl"

_RUN = f"""#!/bin/sh
# Measures the models of this folder: sh run.sh. PYTHON names another Python than python3.
set -eu
CDPATH= cd -- "$(dirname -- "$0")"
unset PYTHONPATH PYTHONSAFEPATH
if [ -d site ]; then
    PYTHONPATH=$PWD/site
    export PYTHONPATH
fi
if [ -e {RESULTS} ]; then
    n=1
    while [ -e results-$n.jsonl ]; do n=$((n + 1)); done
    mv {RESULTS} results-$n.jsonl
fi
DISTILL_PROGRESS=1
export DISTILL_PROGRESS
if "${{PYTHON:-python3}}" -s -m distill.deployment.device.runner > {RESULTS}; then
    echo "Done. Carry {RESULTS} back." >&2
else
    echo "It stopped early: the last line of {RESULTS} says why. Carry it back all the same." >&2
    exit 1
fi
"""


@dataclass(frozen=True, kw_only=True)
class Portable:
    """What the device is, as far as the bundle must know.

    Attributes:
        architecture: aarch64 or x86_64; None where the device has numpy and onnxruntime.
        python: its version, such as "3.11"; given together with the architecture.
        num_threads: that an inference may use.
        pin: whether to stay on as many CPUs as threads.
        spin: whether idle threads burn their CPU, as in the deployment.
        download: whether pip may fetch the wheels.
        wheels: a folder with the wheels instead.
    """

    architecture: str | None = None
    python: str | None = None
    num_threads: int = 1
    pin: bool = True
    spin: bool = True
    download: bool = False
    wheels: str | None = None

    def write(
        self,
        folder: Path,
        artefacts: Sequence[Path],
        inputs: NDArray[Any],
        measurement: Measurement,
        budget: Budget,
    ) -> None:
        """Write the folder anew; its manifest comes last, so that half a bundle does not run.

        Args:
            folder: whatever is there is removed.
            artefacts: ONNX files with distinct names.
            inputs: to rotate through, [K, ...].
            measurement: what the device shall do.
            budget: goes along, so that the runner shows there how its latency limits are held.

        Raises:
            UserError: half a device is named, or there are no wheels for it or for the runtime.
        """
        if measurement.runtime.name == "openvino" and self.architecture:
            raise UserError(
                "Expected `runtime=onnxruntime` in a bundle that brings its packages along but got "
                "openvino: only numpy and onnxruntime are in them. Leave out `bundle.architecture` "
                "and `bundle.python` for a device that has numpy, onnxruntime and openvino."
            )
        site = self._site()
        plan = make_plan(
            artefacts, measurement, num_threads=self.num_threads, pin=self.pin, spin=self.spin
        )
        shutil.rmtree(folder, ignore_errors=True)
        if site is not None:
            shutil.copytree(site, folder / SITE)
        write_json(folder / "budget.json", budget)
        write_text(folder / "run.sh", _RUN)
        (folder / "run.sh").chmod(0o755)
        write_text(folder / "README.txt", self._readme(artefacts, measurement.runtime.name))
        write_bundle(folder, artefacts, inputs, plan)

    def _site(self) -> Path | None:
        if self.architecture is None and self.python is None:
            if self.download or self.wheels:
                raise UserError(
                    "Expected the device's architecture and Python for the wheels of a bundle but "
                    "got neither. Give `bundle.architecture=aarch64 bundle.python=3.11`."
                )
            return None
        if self.architecture is None or self.python is None:
            raise UserError(
                f"Expected architecture and Python of the device together but got "
                f"{self.architecture or 'no architecture'} and {self.python or 'no Python'}. Give "
                "both, as `bundle.architecture=aarch64 bundle.python=3.11`, or none of them."
            )
        return site_packages(
            self.architecture,
            str(self.python),
            wheels=Path(self.wheels) if self.wheels else None,
            download=self.download,
        )

    def _readme(self, artefacts: Sequence[Path], runtime: str) -> str:
        packages = (
            "numpy, onnxruntime and openvino" if runtime == "openvino" else "numpy and onnxruntime"
        )
        needs = (
            f"Needs: Linux with glibc on {self.architecture} and Python {self.python}; no network."
            if self.architecture
            else f"Needs: Linux, Python 3.9 or newer, {packages}; no network."
        )
        return "\n".join(
            (
                f"Measures how fast {', '.join(path.name for path in artefacts)} run on a device.",
                needs,
                "1. Copy this whole folder to the device.",
                "2. There: sh run.sh      (another Python: PYTHON=/path/to/python3 sh run.sh)",
                f"3. Copy {RESULTS} back, and judge it where this folder was made:",
                f"   distill benchmark target=carried target.results={RESULTS} "
                "artefacts=[<the models>]",
                "Close other programs first; the machine's load and heat are written down as well.",
                "manifest.json pins every file: a changed one is refused. At the end the latencies",
                "are shown beside the limits of budget.json; step 3 judges the whole budget.",
                f"{RESULTS} grows while it runs, so that what was measured before a device failed",
                "is not lost; results of an earlier run are kept as results-1.jsonl and so on.",
                "",
            )
        )
