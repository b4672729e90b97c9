"""The stage that writes `export/bundle/`, a folder to carry to a device that nobody reaches."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.deployment.device.runner import StepError, check_files
from distill.deployment.measurement import Measurement
from distill.deployment.portable import Portable
from distill.errors import UsageError
from distill.files import from_json
from distill.verbs.exporting.measuring import digest
from distill.verbs.run.workspace import Workspace, plain

FOLDER = "export/bundle"
MANIFEST = f"{FOLDER}/manifest.json"


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
        "inputs": digest(inputs),
        "wheels": _content(portable.wheels),
    }
    if workspace.leads:
        _forget_unless_whole(workspace.run_dir / MANIFEST)
    return workspace.stage(
        "bundle", compute, values=values, inputs=tuple(artefacts), outputs=(MANIFEST,)
    )


def _content(folder: str | None) -> list[tuple[str, int]]:
    """List the files of a folder with their sizes: other wheels make another bundle."""
    if folder is None or not Path(folder).is_dir():
        return []
    return sorted((path.name, path.stat().st_size) for path in Path(folder).iterdir())


def _forget_unless_whole(manifest: Path) -> None:
    """Remove the manifest of a bundle whose files are not all those that it names."""
    try:
        check_files(manifest)
    except StepError:
        manifest.unlink(missing_ok=True)


def wanted_bundle(node: Any) -> Portable | None:
    """Read `bundle=true`, or any options of it, such as `bundle.num_threads=4`; None: no bundle.

    An option that is null is not given. `bundle.write=false` writes none, whatever else is given.

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
    options = {name: option for name, option in value.items() if option is not None}
    write = options.pop("write", bool(options))
    if isinstance(options.get("python"), float):  # YAML reads 3.10 as a number
        options["python"] = "3.10" if options["python"] == 3.1 else str(options["python"])
    portable = from_json(Portable, options, where="bundle")
    return portable if write else None
