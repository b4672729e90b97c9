"""The timer beside others, a model beside itself, and the verb as a user starts it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import HERE, check, spread
from scipy.stats import binomtest
from torch import nn

from distill.deployment.estimates import is_difference
from distill.deployment.export import export_onnx
from distill.deployment.measurement import Effort, Measurement
from distill.deployment.targets.local import LocalTarget
from distill.training.models import CifarResNet, ImageClassifier, torchvision_classifier

MEAN, STD = [0.5] * 3, [0.25] * 3
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8x4": lambda: ImageClassifier(
        CifarResNet(10, 3, depth=8, widths=[32, 64, 128, 256]), MEAN, STD
    ),
    "mobilenet_v3_small": lambda: ImageClassifier(
        torchvision_classifier(1000, 3, name="mobilenet_v3_small"), MEAN, STD
    ),
}
SHAPES = {"resnet8x4": (32, 32, 3), "mobilenet_v3_small": (224, 224, 3)}
CONTENDERS = (
    "baked", "baked#control", "bare", "pixel by pixel", "io binding", "session", "eager", "nothing",
)  # fmt: skip


class PixelByPixel(ImageClassifier):
    """Normalises before it transposes: three values at a time, which do not vectorise."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map uint8 images to logits."""
        return self.network(((image.float() - self.mean) / self.std).permute(0, 3, 1, 2))


def resnet8() -> nn.Module:
    """The small network that is compared with itself."""
    return ImageClassifier(CifarResNet(10, 3, depth=8), MEAN, STD)


def files(work: Path, name: str) -> dict[str, str]:
    """Export a network with its preprocessing, and without; weights are random."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    baked, bare = work / f"{name}.onnx", work / f"{name}.bare.onnx"
    export_onnx(model, SHAPES[name], baked)
    slow = work / f"{name}.pixels.onnx"
    export_onnx(PixelByPixel(model.network, MEAN, STD).eval(), SHAPES[name], slow)
    height, width, channels = SHAPES[name]
    program = torch.onnx.export(
        model.network,
        (torch.zeros(2, channels, height, width),),
        dynamo=True,
        opset_version=20,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None
    bare.write_bytes(program.model_proto.SerializeToString())
    return {"baked": str(baked), "bare": str(bare), "pixel by pixel": str(slow)}


def rows(work: Path, num_processes: int) -> tuple[list[dict], list[dict]]:
    """Time every contender in fresh processes; ratios are taken within each of them."""
    found, checks = [], []
    for name in NETWORKS:
        exported = files(work, name)
        taken = [_process(name, exported, seed) for seed in range(num_processes)]
        figures = [_figures(process) for process in taken]
        row = {"subject": f"timer, {name}, batch 1, one thread", "num_processes": num_processes}
        row |= {key: spread([f[key] for f in figures]) for key in figures[0]}
        found.append(row)

        def median(key: str, row: dict = row) -> float:
            return row[key]["median"]

        control = row["p99 of the control over itself"]
        floor = max(abs(1 - end) for end in control["interval"] or control["range"])
        checks += [
            check(f"{name}: p50 over loadgen's, off by", abs(1 - median("p50 over loadgen")), 0.03,
                  at_most=True),
            check(f"{name}: p50 over a bare IO binding, off by",
                  abs(1 - median("p50 over io binding")), 0.03, at_most=True),
            check(f"{name}: p99 over loadgen's, off by; the limit is the noise floor of p99",
                  abs(1 - median("p99 over loadgen")), floor, at_most=True),
            check(f"{name}: p99 over a bare IO binding, off by; likewise",
                  abs(1 - median("p99 over io binding")), floor, at_most=True),
            check(f"{name}: harness, us a call", median("harness, us"), 5, at_most=True),
            check(f"{name}: preprocessing inside over the bare model", median("baked over bare"),
                  1.02, at_most=True),
            check(f"{name}: times eager PyTorch", median("eager over baked"), 4),
        ]  # fmt: skip
    return found, checks


def _process(name: str, exported: dict[str, str], seed: int) -> dict:
    order = list(CONTENDERS)
    np.random.default_rng(seed).shuffle(order)
    request = {
        "network": name, "files": exported, "shape": SHAPES[name], "seed": seed,
        "contenders": order, "rounds": 60, "loadgen_s": 3,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, HERE / "latency_worker.py"],
        input=json.dumps(request), capture_output=True, text=True, check=False, cwd=HERE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _figures(taken: dict) -> dict[str, float]:
    p50 = {n: float(np.percentile(v, 50)) for n, v in taken.items() if n != "loadgen"}
    p99 = {n: float(np.percentile(v, 99)) for n, v in taken.items() if n != "loadgen"}
    peer = taken["loadgen"]
    return {
        "p50, ms": p50["baked"] / 1e6,
        "p99, ms": p99["baked"] / 1e6,
        "p50 of the control over itself": p50["baked#control"] / p50["baked"],
        "p99 of the control over itself": p99["baked#control"] / p99["baked"],
        "p50 over loadgen": p50["baked"] / peer["p50"],
        "p99 over loadgen": p99["baked"] / peer["p99"],
        "p50 over io binding": p50["baked"] / p50["io binding"],
        "p99 over io binding": p99["baked"] / p99["io binding"],
        "p50 over session.run": p50["baked"] / p50["session"],
        "harness, us": p50["nothing"] / 1e3,
        "baked over bare": p50["baked"] / p50["bare"],
        "eager over baked": p50["eager"] / p50["baked"],
        "pixel by pixel over baked": p50["pixel by pixel"] / p50["baked"],
    }


def against_itself(work: Path, comparisons: int) -> tuple[list[dict], list[dict]]:
    """Compare one file with a copy of itself, again and again, and count the claims."""
    pair = [work / "one.onnx", work / "same.onnx"]
    torch.manual_seed(0)
    export_onnx(resnet8().eval(), (32, 32, 3), pair[0])
    shutil.copyfile(*pair)
    inputs = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    effort = Effort(cold_starts=0, processes=5, rounds=20, max_seconds=60.0)
    ratios, claims = [], 0
    for seed in range(comparisons):
        request = Measurement(confidence=0.95, seed=100 * seed, effort=effort, golden=False)
        report = LocalTarget(name="aa").measure(pair, inputs, request)
        ratio, floor = report.artefacts[1].ratio_to_first, report.noise_floor
        assert ratio is not None
        assert floor is not None
        claims += is_difference(ratio, floor)
        ratios.append(ratio.estimate)
        print(f"{seed + 1} of {comparisons}: {claims} claims", file=sys.stderr, flush=True)
    by_chance = float(binomtest(claims, comparisons, 0.05, alternative="greater").pvalue)
    row = {
        "subject": "a model (resnet8) against itself", "comparisons": comparisons, "claims": claims,
        "ratio": spread(ratios), "ratio_sd": float(np.std(ratios)), "p_value": by_chance,
    }  # fmt: skip
    held = check("a model against itself: claims of a difference", claims / comparisons, 0.05,
                 at_most=True)  # fmt: skip
    return [row], [held | {"holds": by_chance > 0.05, "p_value": by_chance}]


def verb(work: Path) -> tuple[list[dict], list[dict]]:
    """Time `distill benchmark` on one model and one target, with its defaults."""
    found, checks = [], []
    for name in NETWORKS:
        path = files(work, name)["baked"]
        run_dir = work / f"verb-{name}"
        shutil.rmtree(run_dir, ignore_errors=True)
        command = [sys.executable, "-m", "distill", "benchmark", f"artefacts=[{path}]"]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, f"run_dir={run_dir}"], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        verdict = json.loads(done.stdout.splitlines()[-1])
        p95 = next(c for c in verdict["checks"] if c["name"] == "p95_latency_ms")
        found.append(
            {"subject": f"distill benchmark, {name}", "seconds": seconds, "p95": p95}
        )  # fmt: skip
        checks.append(check(f"{name}: distill benchmark, s", seconds, 60, at_most=True))
    return found, checks
