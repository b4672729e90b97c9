"""A student that static int8 breaks, repaired; beside it, one trained as long without rounding.

The student is a finished resnet8 whose channels are unbalanced on purpose: the same function in
float, and ranges that 8 bits cannot hold. No student that was merely trained broke like that.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from common import check
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch.nn.modules.batchnorm import _BatchNorm

from distill.cli import _fastest_precision, config_dir
from distill.deployment.quantize.recipes import Source, StaticInt8
from distill.files import to_json
from distill.runtime import OnnxModel
from distill.statistics.metrics import compare_paired
from distill.training import fake_quant
from distill.verbs import export
from distill.verbs.exporting import repair
from distill.verbs.exporting.artefacts import export_float32
from distill.verbs.learning.networks import weights_path
from distill.verbs.run.workspace import Workspace, open_workspace

FACTOR, EPOCHS, LIMIT = 64, 6, 0.01


class FrozenStatistics(Callback):
    """What a repair does besides rounding: batch norm keeps its statistics."""

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, *_: Any) -> None:
        """Hold them before every batch."""
        for module in pl_module.student.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def rows(
    run: Path, root: str, overrides: Sequence[str], work: Path
) -> tuple[list[dict], list[dict]]:
    """Break a student, repair it through the `export` verb, and fine-tune it as a control.

    Args:
        run: run folder of a resnet8 of CIFAR-10, teacher and student trained.
        root: folder of the data.
        overrides: of its configuration, such as `soft_labels.path=...`.
        work: for the copy.
    """
    folder = work / "uneven"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "train", folder / "train")
    student = weights_path(folder, "student")
    unbalance(student)
    OmegaConf.register_new_resolver("fastest_precision", _fastest_precision, replace=True)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose(
            "export",
            [
                "experiment=cifar10", f"data.root={root}", f"run_dir={folder}", "quantize=static",
                f"repair.trainer.max_epochs={EPOCHS}", "budget.parity.min_top1_agreement=null",
                f"budget.accuracy.max_drop_vs_float32={LIMIT}", *overrides,
            ],
        )  # fmt: skip
    OmegaConf.set_struct(cfg, False)
    export.run(cfg)
    files = {
        "int8 before": folder / "quantize" / "int8.onnx",
        "int8 after a repair": folder / "quantize_repaired" / "int8.onnx",
    }
    with open_workspace(cfg) as workspace:
        files["int8 after fine-tuning"] = _fine_tuned(workspace, student)
        data = workspace.data
    found, checks = [], []
    for split in ("validation", "test"):
        images, labels = getattr(data, split).inputs, getattr(data, split).labels
        right = _right(folder / "quantize" / "float32.onnx", images, labels)
        for name, path in files.items():
            own = _right(path, images, labels)
            drop = compare_paired(right, own, confidence=0.95)
            subject = f"resnet8 unbalanced by {FACTOR}, {name}, {split}"
            row = {"subject": subject, "accuracy": float(own.mean()), "drop": to_json(drop)}
            found.append(row | {"float32_accuracy": float(right.mean()), "epochs": EPOCHS})
            if name == "int8 after a repair":
                checks.append(check(f"{subject}: lost", drop.estimate, LIMIT, at_most=True))
    return found, checks


def unbalance(path: Path) -> None:
    """Scale one channel inside of every residual block, and undo it in the next convolution."""
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    for block in range(3):
        inside = f"network.blocks.{block}.residual"
        channel = int(state[f"{inside}.0.1.weight"].abs().argmax())
        for name in ("weight", "bias"):
            state[f"{inside}.0.1.{name}"][channel] *= FACTOR
        state[f"{inside}.2.0.weight"][:, channel] /= FACTOR
    torch.save(content, path)


def _fine_tuned(workspace: Workspace, student: Path) -> Path:
    """Train as a repair does, but for the rounding; return its static int8 file."""
    kept = repair.ROLE, fake_quant.QuantizationAware
    repair.ROLE = "student_fine_tuned"
    fake_quant.QuantizationAware = lambda *_, **__: FrozenStatistics()  # type: ignore[assignment]
    try:
        tuned = repair.repair_stage(workspace, {"candidates": []}, student)
    finally:
        repair.ROLE, fake_quant.QuantizationAware = kept  # type: ignore[misc]
    folder = workspace.run_dir / "fine_tuned"
    export_float32(workspace, tuned, folder / "float32.onnx")
    train = workspace.data.train
    drawn = np.random.default_rng(workspace.cfg.seed).permutation(len(train))
    recipe = StaticInt8()
    with tempfile.TemporaryDirectory() as scratch:
        images = train.inputs[drawn[: recipe.num_calibration_samples]]
        recipe.make(Source(folder / "float32.onnx", images, Path(scratch)), folder / "int8.onnx")
    return folder / "int8.onnx"


def _right(path: Path, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return OnnxModel(path, num_threads=2).predict(images).argmax(1) == labels
