"""The stage that writes `export/bundle/`, a folder to carry to a device that nobody reaches."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.deployment.measurement import Measurement
from distill.deployment.portable import Portable
from distill.errors import UsageError
from distill.files import from_json
from distill.verbs.workspace import Workspace, plain

FOLDER = "export/bundle"
FILES = ("manifest.json", "plan.json", "run.sh", "budget.json", "README.txt")


def bundle_stage(
    workspace: Workspace,
    artefacts: Sequence[Path],
    inputs: NDArray[Any],
    measurement: Measurement,
    portable: Portable,
) -> dict[str, Any]:
    """Write the bundle of a run's artefacts.

    Args:
        workspace: of the run.
        artefacts: the first is the reference.
        inputs: to rotate through, [K, ...].
        measurement: what the device shall do.
        portable: what the device is.
    """
    folder, budget = workspace.run_dir / FOLDER, workspace.budget

    def compute() -> dict[str, Any]:
        portable.write(folder, artefacts, inputs, measurement, budget)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return {
            "bundle": str(folder),
            "size_bytes": size,
            "artefacts": [path.name for path in artefacts],
            "architecture": portable.architecture,
            "python": portable.python,
        }

    asked = {
        field.name: getattr(measurement, field.name)
        for field in dataclasses.fields(measurement)
        if field.name != "progress"
    }
    values = {
        "portable": portable,
        "measurement": asked | {"scenario": measurement.scenario._asdict()},
        "budget": budget,
        "inputs": hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest(),
    }
    return workspace.stage(
        "bundle",
        compute,
        values=values,
        inputs=tuple(artefacts),
        outputs=tuple(f"{FOLDER}/{name}" for name in FILES),
    )


def wanted_bundle(node: Any) -> Portable | None:
    """Read `bundle=true`, or `bundle.architecture=aarch64 bundle.python=3.11`; None: no bundle.

    Raises:
        UsageError: it is something else.
    """
    value = plain(node)
    if value is None or value is False:
        return None
    if value is True:
        return Portable()
    if not isinstance(value, dict):
        raise UsageError(f"Expected `bundle` to be true or its options but got {value!r}.")
    options = dict(value)
    write = options.pop("write", True)
    if isinstance(options.get("python"), float):  # YAML reads 3.10 as a number
        options["python"] = "3.10" if options["python"] == 3.1 else str(options["python"])
    portable = from_json(Portable, options, where="bundle")
    return portable if write or portable.architecture else None
