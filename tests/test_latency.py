import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import distill.runtime
from distill.deployment import latency
from distill.deployment.latency import median_ratio, percentiles
from distill.deployment.targets import LocalTarget
from distill.errors import UserError

TRAVELLERS = [Path(module.__file__) for module in (latency, distill.runtime)]


@pytest.mark.parametrize("path", TRAVELLERS, ids=lambda path: path.stem)
def test_the_travelling_modules_need_python_39_numpy_and_onnxruntime_alone(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Match)]
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) <= {"numpy", "onnxruntime", "distill", "runtime"}


def test_percentiles_are_those_of_numpy(rng):
    samples = rng.lognormal(size=(50, 10)) * 1e6
    found = [estimate for estimate, _, _ in percentiles(samples, [50, 95, 99], 0.95)]
    assert found == pytest.approx(np.percentile(samples, [50, 95, 99]))


def test_intervals_of_independent_latencies_cover_the_truth():
    truth = np.exp(1.6448536 * 0.3)  # p95 of a log-normal
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        samples = np.exp(0.3 * rng.normal(size=(60, 10)))
        _, low, high = percentiles(samples, [95], 0.95, seed=trial)[0]
        hits += low <= truth <= high
    assert hits / 200 > 0.88


def test_correlated_latencies_get_wider_intervals_than_independent_ones():
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(size=60), 5)[:, None]  # slow and fast spells of five rounds
    correlated = 10 + level + 0.1 * rng.normal(size=(300, 10))
    shuffled = rng.permutation(correlated.ravel()).reshape(300, 10)
    widths = [
        high - low
        for _, low, high in (percentiles(s, [50], 0.95)[0] for s in (correlated, shuffled))
    ]
    assert widths[0] > 3 * widths[1]


def test_a_ratio_is_paired_by_round(rng):
    drift = np.linspace(1, 3, 100)[:, None]  # the machine grows slower
    reference = drift * rng.normal(100, 1, (100, 10))
    estimate, low, high = median_ratio(1.5 * reference, reference, 0.95)
    assert estimate == pytest.approx(1.5)
    assert high - low < 1e-9


@pytest.mark.slow
def test_a_target_measures_in_processes_of_their_own(finished):
    folder, _ = finished
    paths = [folder / "export" / name for name in ("model.onnx", "teacher.onnx")]
    inputs = np.zeros((8, 8, 8, 1), np.uint8)
    target = LocalTarget(name="here", min_rounds=20, max_rounds=20)
    report = target.measure(paths, inputs, confidence=0.95)
    assert set(report.samples) == {"model.onnx", "teacher.onnx", "model.onnx#control"}
    assert all(s.shape == (20, 10) and s.min() > 0 for s in report.samples.values())
    assert len(report.conditions["cpus"]) == 1
    student, teacher = report.artefacts
    assert teacher.p50_latency_ms.estimate > student.p50_latency_ms.estimate
    assert student.p50_latency_ms.estimate <= student.p95_latency_ms.estimate
    assert student.size_bytes == paths[0].stat().st_size
    # A Python process with numpy and onnxruntime; torch in it would be far above.
    assert 20e6 < student.peak_rss_bytes.estimate < 150e6


def test_more_threads_than_cpus_is_one_message(tmp_path):
    target = LocalTarget(name="big", num_threads=4096)
    with pytest.raises(UserError, match="4096 CPUs"):
        target.measure([tmp_path / "m.onnx"], np.zeros((1, 1)), confidence=0.95)


def test_a_measuring_process_that_fails_is_one_message(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"m\.onnx"):
        LocalTarget(name="here").measure([tmp_path / "m.onnx"], np.zeros((1, 1)), confidence=0.95)


def test_the_timer_imports_no_torch():
    code = "import sys, distill.deployment.latency; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
