"""int8 and float32 files on processors that this machine is not, under emulation."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from latency_timer import NETWORKS, SHAPES

from distill.deployment.export import export_onnx
from distill.deployment.measurement import Measurement
from distill.deployment.quantize.recipes import Source, StaticInt8
from distill.deployment.targets.qemu import QemuTarget
from distill.files import to_json

PROCESSORS = (
    ("cortex-a72", "aarch64"),
    ("cortex-a76", "aarch64"),
    ("Haswell-noTSX", "x86_64"),
)
RECIPES = {"int8": StaticInt8(), "int8, reduced range": StaticInt8(reduce_range=True)}


def rows(work: Path, download: bool) -> tuple[list[dict], list[dict]]:
    """Compare answers there with those here, and with float32; weights are random.

    Args:
        work: for the models.
        download: whether emulators may be fetched.
    """
    found = []
    for name in NETWORKS:
        paths, images = _files(work, name)
        for cpu, architecture in PROCESSORS:
            target = QemuTarget(name=cpu, cpu=cpu, architecture=architecture, download=download)
            answers = target.check(paths, images, Measurement(confidence=0.95))
            for row in answers.rows:
                subject = f"{Path(row.artefact).stem} on {cpu}"
                found.append({"subject": subject, "versions": answers.versions, **to_json(row)})
    return found, []


def _files(work: Path, name: str) -> tuple[list[Path], np.ndarray]:
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, *SHAPES[name]), dtype=np.uint8)
    paths = [work / f"{name}.onnx"]
    export_onnx(NETWORKS[name]().eval(), SHAPES[name], paths[0])
    with tempfile.TemporaryDirectory() as folder:
        source = Source(paths[0], images, Path(folder))
        for recipe, make in RECIPES.items():
            paths.append(work / f"{name}, {recipe}.onnx")
            make.make(source, paths[-1])
    return paths, images
