import ast
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import distill
from distill.deployment.bundle import _TRAVELLERS
from distill.deployment.device import latency, machine
from distill.deployment.device.latency import Rotation, Scenario, lead_in, time_rounds, warm_up
from distill.deployment.device.probe import OPENVINO

TRAVELLERS = [Path(distill.__file__).parent / name for name in _TRAVELLERS]
ROOM = Path(distill.__file__).parent / "deployment" / "device"
SENT = {ROOM / name for name in ("guard.py", "probe.py", "receive.py")}  # as programs on stdin


@pytest.mark.parametrize("path", [*TRAVELLERS, *sorted(SENT)], ids=lambda path: path.stem)
def test_what_travels_needs_python_39_numpy_and_onnxruntime_alone(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Match)]
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    ours = {name for name in imported if name.split(".")[0] == "distill"}
    assert ours <= {"distill.runtime", "distill.deployment.device.step"} | {
        "distill.deployment.device", "distill.deployment.device.latency",
    }  # fmt: skip
    others = {name.split(".")[0] for name in imported - ours} - set(sys.stdlib_module_names)
    assert others <= {"numpy", "onnxruntime", "openvino"}


def test_everything_in_the_room_travels_in_a_bundle_or_over_stdin():
    bundled = {path for path in TRAVELLERS if path.parent == ROOM}
    assert bundled | SENT == set(ROOM.glob("*.py"))
    assert bundled & SENT == set()


class Sleeper:
    """A model that takes a known time and remembers what it was called with."""

    def __init__(self, seconds=0.0):
        self.seconds, self.seen = seconds, []

    def __call__(self, batch):
        self.seen.append(batch.ravel()[0])
        if self.seconds:
            time.sleep(self.seconds)


def test_inputs_rotate_through_all_samples():
    model, rotation = Sleeper(), Rotation(np.arange(7)[:, None], 1, seed=0)
    out = np.zeros(10, np.int64)
    Scenario().time_calls(model, rotation, out)
    Scenario().time_calls(model, rotation, out)
    assert model.seen == [i % 7 for i in range(20)]


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (64, 32), (4, 8), (1, 5)])
def test_batches_are_whole_and_differ(count, batch):
    rotation = Rotation(np.arange(count)[:, None], batch, seed=0)
    assert {len(b) for b in rotation.batches} == {batch}
    firsts = [b[0, 0] for b in rotation.batches]
    assert len(set(firsts)) == len(firsts)


def test_nanoseconds_are_those_of_the_call():
    out = np.zeros(5, np.int64)
    Scenario().time_calls(Sleeper(0.01), Rotation(np.zeros((1, 1)), 1, seed=0), out)
    assert (out >= 10e6).all()


def test_an_open_loop_charges_a_stall_to_all_who_waited():
    # Served 20 ms each, due about every millisecond: the tenth waits for nine others.
    out = np.zeros(10, np.int64)
    scenario = Scenario("server", 1, 1000.0)
    scenario.time_calls(Sleeper(0.02), Rotation(np.zeros((1, 1)), 1, seed=0), out)
    assert out[9] > 9 * 15e6
    assert (np.diff(out) > 0).all()


def test_an_open_loop_waits_for_arrivals():
    out = np.zeros(20, np.int64)
    start = time.perf_counter()
    Scenario("server", 1, 200.0).time_calls(Sleeper(), Rotation(np.zeros((1, 1)), 1, seed=1), out)
    assert time.perf_counter() - start > 0.03  # 20 arrivals at 200 a second take about 100 ms
    assert (out >= 0).all()


def test_what_arrives_while_a_queue_forms_is_not_timed():
    out = np.zeros(10, np.int64)
    model = Sleeper(0.002)
    Scenario("server", 1, 1000.0).time_calls(
        model, Rotation(np.zeros((1, 1)), 1, seed=0), out, lead_in=30
    )
    assert len(model.seen) == 40
    assert out.min() > 20e6  # 30 arrivals a millisecond apart, served 2 ms each, were before


def test_a_busier_queue_takes_longer_to_settle():
    assert lead_in(None) == 0
    assert lead_in(0.0) == 4
    assert 16 <= lead_in(0.5) < lead_in(0.9) < lead_in(0.99) == lead_in(5.0) <= 1600


def test_rounds_hold_every_contender_and_stop_when_time_is_up():
    models = {n: (Sleeper(0.001), Rotation(np.zeros((4, 1)), 1, seed=0)) for n in "ab"}
    settings = {"calls": 5, "seed": 0}
    taken = time_rounds(models, Scenario(), rounds=3, max_seconds=60, **settings)
    assert {name: s.shape for name, s in taken.items()} == {"a": (3, 5), "b": (3, 5)}
    taken = time_rounds(models, Scenario(), rounds=1000, max_seconds=0.0, **settings)
    assert {s.shape for s in taken.values()} == {(1, 5)}  # one round at least


def test_warm_up_goes_on_while_a_model_gets_faster():
    class Warming:
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            time.sleep(max(0.0, 0.004 - 0.00002 * self.calls))

    model = Warming()
    assert warm_up(model, Rotation(np.zeros((1, 1)), 1, seed=0)) >= 180


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            # A hypervisor says the first part alone, of processors that differ.
            "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n\n"
            "model name\t: other\n",
            "AMD EPYC (family 25, model 17, stepping 1)",
        ),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd08\n", "implementer 0x41, part 0xd08"),
    ],
)
def test_processors_of_one_name_are_told_apart(monkeypatch, cpuinfo, name):
    monkeypatch.setattr(machine, "_text", {"/proc/cpuinfo": cpuinfo}.get)
    assert machine.describe()["processor"] == name


@pytest.mark.parametrize("seconds", [0.0, 5.0, 20.0])
def test_warm_up_goes_on_for_as_long_as_it_is_told(monkeypatch, seconds):
    ticks, now = itertools.count(0, 100), [0.0]

    def model(batch):
        now[0] += 0.01

    clock = SimpleNamespace(perf_counter=lambda: now[0], perf_counter_ns=lambda: next(ticks))
    monkeypatch.setattr(latency, "time", clock)
    calls = warm_up(model, Rotation(np.zeros((1, 1)), 1, seed=0), seconds)
    # 20 calls at a time, four of them to be sure that they get no faster.
    assert calls == pytest.approx(max(80, seconds / 0.01), abs=20)


def test_the_timer_imports_no_torch():
    code = "import sys, distill.deployment.device.runner; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_pinning_keeps_the_last_cpus():
    code = (
        "import os; from distill.deployment.device import machine; cpus = machine.pin(1);"
        "print(cpus == sorted(os.sched_getaffinity(0)), len(cpus), cpus[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"True 1 {max(os.sched_getaffinity(0))}\n"


@pytest.mark.parametrize("program", ["import distill.deployment.device.openvino_model", OPENVINO])
def test_openvino_reports_its_use_to_nobody(program, tmp_path):
    pytest.importorskip("openvino", reason="needs the `openvino` extra")
    quiet = ("CI", "TF_BUILD", "JENKINS_URL")  # where it would not report anyway
    environment = {k: v for k, v in os.environ.items() if k not in quiet} | {"HOME": str(tmp_path)}
    code = f"{program}\nimport sys\nassert 'openvino' in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not [*tmp_path.iterdir()]  # it keeps who we are in ~/intel
