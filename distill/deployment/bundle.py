"""A bundle: one folder with all that a device needs to measure artefacts, pinned by sha256.

The runner's own sources, models, inputs, golden answers, plan and budget; for other machines also
numpy and onnxruntime unpacked in `site/`, so that neither pip nor root nor a network is needed
there. Knows nothing of how it gets to the device.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import distill
from distill.deployment.device.runner import tree_sha256
from distill.files import sha256, write_json
from distill.runtime import OnnxModel

MODELS, SITE = "models", "site"
NUM_GOLDEN = 32

_TRAVELLERS = (
    "__init__.py",
    "runtime.py",
    "deployment/__init__.py",
    "deployment/device/__init__.py",
    "deployment/device/gate.py",
    "deployment/device/latency.py",
    "deployment/device/machine.py",
    "deployment/device/openvino_model.py",
    "deployment/device/runner.py",
    "deployment/device/step.py",
    "deployment/device/table.py",
)


def write_bundle(
    folder: Path,
    artefacts: Sequence[Path],
    inputs: NDArray[Any],
    plan: dict[str, Any],
    trees: Mapping[str, Path] | None = None,
) -> None:
    """Fill a folder with runner, models, inputs, golden answers, plan and manifest.

    Args:
        folder: absent, or what lies in it belongs to the bundle.
        artefacts: ONNX files with distinct names.
        inputs: to rotate through, [K, ...]; the first few are the golden ones.
        plan: what the runner reads.
        trees: folders that the device keeps elsewhere, by their paths there, to be pinned as well.

    Raises:
        ModelError: an artefact does not answer the inputs here.
    """
    package = Path(distill.__file__).parent
    for name in _TRAVELLERS:
        target = folder / "distill" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, target)
    (folder / MODELS).mkdir()
    for path in artefacts:
        shutil.copyfile(path, folder / MODELS / path.name)
    np.save(folder / "inputs.npy", inputs, allow_pickle=False)
    golden = {"input": inputs[:NUM_GOLDEN]}
    if plan["golden"]:
        for path in artefacts:
            golden[f"output/{path.name}"] = OnnxModel(path).predict(inputs[:NUM_GOLDEN])
    np.savez(folder / "golden.npz", allow_pickle=False, **golden)
    write_json(folder / "plan.json", plan)
    pin_files(folder, trees)


def pin_files(folder: Path, trees: Mapping[str, Path] | None = None) -> None:
    """Write `manifest.json`, which the runner checks first.

    It holds the sha256 of every file of ours, and of `site/` and other `trees` one for all files.
    """
    trees = dict(trees or {})
    if (folder / SITE).is_dir():
        trees[SITE] = folder / SITE
    ours = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] != SITE
        and path.name != "manifest.json"
        and "__pycache__" not in path.parts
    )
    files = {str(path.relative_to(folder)): sha256(path) for path in ours}
    pinned = {name: tree_sha256(path) for name, path in trees.items()}
    write_json(folder / "manifest.json", {"files": files, "trees": pinned})
