"""CPUs under emulation: outcomes by a stand-in for QEMU, and the real one on a small model."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import REPOSITORY
from common_fixtures import make_file, saturates
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from onnx import TensorProto, helper, numpy_helper

from distill.deployment.compatibility import answered, error_grew, unanswered
from distill.deployment.measurement import Measurement, Runtime
from distill.deployment.quantize.recipes import StaticInt8
from distill.deployment.targets import qemu
from distill.deployment.targets.qemu import QemuTarget
from distill.errors import UserError
from distill.files import from_json, to_json

NATIVE = 'shift 2; exec "$@"'  # drops `-cpu <name>`: Python runs as it would without QEMU
ANSWER = {
    "num_samples": 32,
    "max_abs": 0.5,
    "output_std": 0.3,
    "top1_agreement": 0.75,
    "finite": True,
    "error_vs_reference": 0.31,
}


def dense_model(path: Path, *, num_outputs: int = 3) -> Path:
    """Write a uint8 classifier whose int8 sums are as large as they get: 8-bit halves overflow."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.5, 1, (64, num_outputs)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Flatten", ["pixels"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "weight"], ["output"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", num_outputs])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture
def images(rng):
    return rng.integers(128, 256, (64, 8, 8, 1)).astype(np.uint8)


@pytest.fixture
def emulate(tmp_path, monkeypatch):
    """Make a target whose emulator is a shell script."""
    folder = tmp_path / "cache" / "distill" / "emulator" / "qemu-trixie"
    folder.mkdir(parents=True)
    (folder / "packages.txt").write_text("qemu-user_1%3a10.0_amd64.deb\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(qemu, "own_packages", lambda: Path(np.__file__).parent.parent)

    def make(script: str, seconds: float = 60.0) -> QemuTarget:
        (folder / "qemu-x86_64").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "qemu-x86_64").chmod(0o755)
        return QemuTarget(
            name="qemu_haswell", cpu="Haswell-noTSX", architecture="x86_64", seconds=seconds
        )

    return make


def replying(answer: object) -> str:
    return f"cat > /dev/null; echo '{json.dumps(answer)}'"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "outcome", "text"),
    [
        (NATIVE, "same", "bit for bit"),
        ("kill -ILL $$", "illegal instruction", "an instruction that this CPU lacks"),
        ("exit 132", "illegal instruction", "an instruction that this CPU lacks"),
        ("kill -SEGV $$", "cannot run", "segmentation fault"),
        ("kill -KILL $$", "cannot run", "killed, perhaps for memory"),
        ("echo 'unable to find CPU model' >&2; exit 1", "cannot run", "unable to find CPU model"),
        ("exit 3", "cannot run", "exit code 3"),
        ("echo garbage", "cannot run", "it said 'garbage' instead of an answer"),
        ("echo 7", "cannot run", "it said '7' instead of an answer"),
        ("true", "cannot run", "exit code 0"),
        (replying({"error": "Expected a model."}), "cannot run", "Expected a model."),
        (replying(ANSWER), "differs", "25.0% of answers differ, outputs 0.3 of their spread"),
        (replying(ANSWER | {"finite": False}), "differs", "not numbers"),
    ],
)
def test_every_end_of_an_emulated_process_has_its_outcome(
    emulate, tmp_path, images, script, outcome, text
):
    model = dense_model(tmp_path / "model.onnx")
    found = emulate(script).check([model], images, Measurement(confidence=0.95))
    (row,) = found.rows
    assert row.outcome == outcome
    assert text in row.text
    assert (row.num_samples == 32) == (outcome in ("same", "differs"))
    assert (row.reason is None) == (outcome in ("same", "differs"))


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_with_what_it_started(emulate, tmp_path, images):
    model = dense_model(tmp_path / "model.onnx")
    pids = tmp_path / "pids"
    target = emulate(f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait", seconds=4)
    (row,) = target.check([model], images, Measurement(confidence=0.95)).rows
    assert row.outcome == "cannot run"
    assert row.reason == "no answer within 4 s; give it more `seconds`"
    child, shell = (int(pid) for pid in pids.read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(shell, 0)
    status = Path(f"/proc/{child}/stat")  # ended, though nobody may have asked for it yet
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_an_emulator_that_is_gone_is_one_message(emulate, tmp_path, images):
    model = dense_model(tmp_path / "model.onnx")
    target = emulate(NATIVE)
    (tmp_path / "cache" / "distill" / "emulator" / "qemu-trixie" / "qemu-x86_64").unlink()
    with pytest.raises(UserError, match=r"No such file or directory\. Delete .*qemu-trixie"):
        target.check([model], images, Measurement(confidence=0.95))


def test_only_onnxruntime_is_there_under_emulation(emulate, tmp_path, images):
    request = Measurement(confidence=0.95, runtime=Runtime(name="openvino"))
    with pytest.raises(UserError, match="runtime=onnxruntime"):
        emulate(NATIVE).check([tmp_path / "model.onnx"], images, request)


def test_nothing_is_read_from_the_environment_of_python(emulate, tmp_path, images, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('not ours')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "numpy.py"))
    model = dense_model(tmp_path / "model.onnx")
    (row,) = emulate(NATIVE).check([model], images, Measurement(confidence=0.95)).rows
    assert row.outcome == "same"


@pytest.mark.slow
def test_errors_against_the_first_artefact_are_those_of_numpy(emulate, tmp_path, images):
    first = dense_model(tmp_path / "model.onnx")
    int8 = tmp_path / "model.int8.onnx"
    make_file(StaticInt8(num_calibration_samples=32), first, int8, images)
    other = dense_model(tmp_path / "other.onnx", num_outputs=5)
    rows = emulate(NATIVE).check([first, int8, other], images, Measurement(confidence=0.95)).rows
    here = [qemu_answers(path, images) for path in (first, int8)]
    expected = np.sqrt(np.mean((here[1] - here[0]) ** 2)) / np.std(here[0])
    assert [row.artefact for row in rows] == ["model.onnx", "model.int8.onnx", "other.onnx"]
    assert rows[1].error_vs_first == pytest.approx(expected, rel=1e-6)
    assert rows[1].error_vs_first_here == pytest.approx(expected, rel=1e-6)
    assert (rows[0].error_vs_first, rows[0].error_vs_first_here) == (0, 0)
    assert rows[2].outcome == "same"
    assert (rows[2].error_vs_first, rows[2].error_vs_first_here) == (None, None)  # other classes


def qemu_answers(path: Path, images: np.ndarray) -> np.ndarray:
    """What a model answers to the golden inputs, in float64 and without our own session."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": images[:32]})[0], np.float64)


def test_as_a_target_it_reports_golden_answers_and_never_a_latency(emulate, tmp_path, images):
    first, second = dense_model(tmp_path / "a.onnx"), dense_model(tmp_path / "b.onnx")
    dies_once = f'[ -e {tmp_path}/once ] && kill -ILL $$; touch {tmp_path}/once; shift 2; exec "$@"'
    report = emulate(dies_once).measure([first, second], images, Measurement(confidence=0.95))
    alive, dead = report.artefacts
    assert alive.golden is not None
    assert (alive.golden["max_abs"], alive.golden["num_samples"]) == (0, 32)
    assert alive.golden["finite"] is True
    assert dead.golden is None
    assert report.incomplete is not None
    assert report.incomplete.startswith("b.onnx: ")
    for row in report.artefacts:
        timed = [n for n in asdict(row) if n.endswith(("_ms", "_second", "_first", "_rss_bytes"))]
        assert len(timed) == 7
        assert [getattr(row, name) for name in timed] == [None] * 7
        assert row.size_bytes == first.stat().st_size
    assert report.samples == {}
    assert report.noise_floor is None
    assert "emulated" in report.conditions["machine"]["processor"]
    assert "QEMU 1:10.0" in report.conditions["machine"]["system"]
    assert report.conditions["machine"]["onnxruntime"]


def test_results_survive_json(emulate, tmp_path, images):
    model = dense_model(tmp_path / "model.onnx")
    found = emulate("exit 132").check([model], images, Measurement(confidence=0.95))
    assert from_json(type(found), json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize(
    ("changes", "outcome", "text"),
    [
        ({"max_abs": 0, "output_std": 0, "top1_agreement": 1}, "same", "bit for bit"),
        ({"output_std": 1e-5, "top1_agreement": 0.97}, "same", "but for rounding"),
        ({"output_std": 1.1e-5, "top1_agreement": 1}, "close", "same classes, outputs 1.1e-05"),
        ({"output_std": 1e-2, "top1_agreement": 1}, "close", "same classes, outputs 0.01 of"),
        ({"output_std": 1.1e-2, "top1_agreement": 1}, "differs", "same classes, outputs 0.011"),
        ({"output_std": 1e-3, "top1_agreement": 0.96875}, "differs", "3.1% of answers differ"),
        ({"output_std": float("nan"), "max_abs": float("nan")}, "differs", "differ"),
    ],
)
def test_outcomes_change_at_their_thresholds(changes, outcome, text):
    row = answered("a.onnx", ANSWER | changes, error_here=0.31)
    assert row.outcome == outcome
    assert row.text.startswith(text) or text in row.text


def test_a_saturating_sum_is_told_by_its_error_and_rounding_is_not():
    row = answered("int8.onnx", ANSWER, error_here=0.08)
    assert row.text.endswith("error against the first artefact 0.31, here 0.08")
    assert "error" not in answered("int8.onnx", ANSWER, error_here=0.3).text
    assert not error_grew(4e-6, 0.0)  # float32, summed in another order
    assert error_grew(0.02, 0.0)
    assert not error_grew(None, 0.0)
    assert unanswered("a.onnx", "SIGILL", illegal=True).outcome == "illegal instruction"


def test_several_emulators_are_chosen_by_name(tmp_path):
    (tmp_path / "verb.yaml").write_text(
        f"hydra: {{searchpath: ['file://{REPOSITORY}/conf']}}\n"
        "defaults: [{emulator: none}, _self_]\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("verb").emulator == {}
        chosen = ["emulator=[qemu_cortex_a72,qemu_cortex_a76,qemu_haswell]"]
        cfg = compose("verb", overrides=[*chosen, "emulator.qemu_haswell.download=true"])
    targets = {name: instantiate(node) for name, node in cfg.emulator.items()}
    assert [(name, t.name, t.cpu, t.download) for name, t in targets.items()] == [
        ("qemu_cortex_a72", "qemu_cortex_a72", "cortex-a72", False),
        ("qemu_cortex_a76", "qemu_cortex_a76", "cortex-a76", False),
        ("qemu_haswell", "qemu_haswell", "Haswell-noTSX", True),
    ]


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize(
    ("cpu", "architecture"),
    [("cortex-a72", "aarch64"), ("cortex-a76", "aarch64"), ("Haswell-noTSX", "x86_64")],
)
def test_int8_answers_alike_on_arm_and_saturates_without_vnni(
    cpu, architecture, tmp_path, images, require
):
    """The real emulator, fetched into the user's own cache if it is not there yet."""
    require("qemu", "apt-get")
    first = dense_model(tmp_path / "model.onnx")
    int8 = tmp_path / "model.int8.onnx"
    make_file(StaticInt8(num_calibration_samples=32), first, int8, images)
    target = QemuTarget(name="real", cpu=cpu, architecture=architecture, download=True)
    try:
        found = target.check([first, int8], images, Measurement(confidence=0.95))
    except UserError as error:
        if "qemu" in os.environ.get("DISTILL_REQUIRE", "").split(","):
            raise
        pytest.skip(f"needs an emulator, which cannot be set up here: {error}")
    exact, quantised = found.rows
    assert exact.outcome == "same"
    assert found.versions["onnxruntime"]
    if saturates:
        return  # what this machine answers is no measure of others
    if architecture == "aarch64":
        assert (quantised.outcome, quantised.text) == ("same", "bit for bit")
    else:
        assert quantised.outcome == "differs"
        assert error_grew(quantised.error_vs_first, quantised.error_vs_first_here)
