import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_intake import save

from distill.budget import parse_budget
from distill.deployment.bundle import write_bundle
from distill.deployment.checks import target_checks
from distill.deployment.device import runner
from distill.deployment.device.latency import Scenario
from distill.deployment.device.runner import patience, read_answer, undecided
from distill.deployment.device.step import encode
from distill.deployment.measurement import (
    PROCESS,
    Effort,
    Measurement,
    Runtime,
    make_plan,
    split_processes,
)
from distill.deployment.targets import local
from distill.deployment.targets.local import LocalTarget
from distill.deployment.targets.stream import read_results, run_runner
from distill.errors import UsageError, UserError
from distill.files import to_json

QUICK = Effort(cold_starts=1, processes=2, warm_up_seconds=0, rounds=3, max_seconds=20)
INPUTS = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    return [save(tmp_path / f"{name}.onnx") for name in ("a", "b")]


def request(**changes):
    return dataclasses.replace(Measurement(confidence=0.95, effort=QUICK), **changes)


def test_a_target_measures_in_processes_of_their_own(files):
    said = []
    report = LocalTarget(name="here").measure(files, INPUTS, request(progress=said.append))
    assert set(report.samples) == {"a.onnx", "b.onnx", "a.onnx#control", PROCESS}
    assert report.samples["a.onnx"].shape == (6, 10)
    assert [len(p) for p in split_processes(report.samples, "b.onnx")] == [3, 3]
    assert report.samples["a.onnx"].min() > 0
    first, second = report.artefacts
    assert first.ratio_to_first.estimate == 1
    assert second.p50_latency_ms.estimate <= second.p95_latency_ms.estimate
    assert second.golden["max_abs"] == 0
    assert second.size_bytes == files[1].stat().st_size
    # A Python process with numpy and onnxruntime; torch in it would be far above.
    assert 20e6 < first.peak_rss_bytes.estimate < 150e6
    assert report.conditions["processes"] == 2
    assert len(report.conditions["pinned_to"]) == 1
    assert report.incomplete is None
    assert any("measuring process 2" in line for line in said)


def test_measuring_goes_on_while_a_limit_is_undecided(files):
    # No call takes a nanosecond: decided at once.
    decided = LocalTarget(name="here").measure(files, INPUTS, request(limits_ms={50: 1e-6}))
    assert decided.conditions["processes"] == 2

    class EnoughError(Exception):
        pass

    def until_a_third(line):
        if "measuring process 3" in line:
            raise EnoughError

    # p99 needs 367 calls at least: not after 2 x 120.
    effort = dataclasses.replace(QUICK, rounds=12)
    asking = request(limits_ms={99: 1e4}, effort=effort, progress=until_a_third)
    with pytest.raises(EnoughError):
        LocalTarget(name="here").measure(files, INPUTS, asking)


def test_it_is_looked_at_after_twice_as_many_processes_each_time(files, monkeypatch):
    def processes(level, *, seconds, over=0):
        """Count processes of 120 calls each, of which one tells when it is `over`."""
        asked = []

        def step(told, seconds):
            asked.append(told)
            taken = np.full((told["rounds"], told["calls"]), 1000)
            taken[0, 0] += over
            return {"samples": {c["name"]: encode(taken) for c in told["contenders"]}}

        monkeypatch.setattr(runner, "step", step)
        effort = dataclasses.replace(QUICK, rounds=12, max_seconds=seconds)
        asking = request(limits_ms={level: 1e-2}, effort=effort, gated=["a.onnx"])
        plan = make_plan(files, asking, num_threads=1, pin=False, spin=True)
        taken = {entry["name"]: [] for entry in plan["contenders"]}
        runner.measure(plan, {}, slowest_ms=1.0, taken=taken)
        return len(asked)

    # 0.95^240 < 0.05/2. 0.99^240 = 0.09, but 0.99^480 = 0.0080 < 0.05/6: after twice as many.
    assert processes(95, seconds=1e6) == 2
    assert processes(99, seconds=1e6) == 4
    # One of 120 is over the limit that one of 100 may be: undecided for long.
    assert processes(99, seconds=1e6, over=10**6) > 8
    assert processes(99, seconds=0) == 2


def test_only_artefacts_that_may_ship_keep_it_going(files):
    plan = make_plan(
        files, request(limits_ms={99: 1.0}, gated=["b.onnx"]), num_threads=1, pin=True, spin=True
    )
    fast, slow = [np.full((60, 10), 1000)] * 2, [np.full((60, 10), 2_000_000)] * 2
    assert undecided(plan, {"a.onnx": [np.full((1, 10), 1000)] * 2, "b.onnx": slow}) == []
    assert undecided(plan, {"a.onnx": fast, "b.onnx": [f[:1] for f in fast]}) == [("b.onnx", 99)]


def test_offline_counts_samples_and_the_server_scenario_waits_for_arrivals(files):
    report = LocalTarget(name="here").measure(
        files[:1], INPUTS, request(scenario=Scenario("offline", 8, None))
    )
    row = report.artefacts[0]
    calls_per_second = 1e9 / report.samples["a.onnx"].mean()
    assert row.samples_per_second.estimate == pytest.approx(8 * calls_per_second, rel=0.5)
    effort = dataclasses.replace(QUICK, rounds=1)
    report = LocalTarget(name="here").measure(
        files[:1], INPUTS, request(scenario=Scenario("server", 1, 2000.0), effort=effort)
    )
    assert report.samples["a.onnx"].shape == (2, 100)
    assert report.artefacts[0].samples_per_second is None


@pytest.mark.parametrize(
    "values",
    [
        {"rounds": 0},
        {"processes": 0},
        {"max_seconds": -1},
        {"cold_starts": -1},
        {"warm_up_seconds": -1},
    ],
)
def test_an_effort_that_measures_nothing_is_refused(values):
    with pytest.raises(UsageError, match="effort"):
        Effort(**values)


@pytest.mark.parametrize("scenario", [Scenario("s", 0), Scenario("s", 1, 0.0)])
def test_a_scenario_without_calls_is_refused(scenario):
    with pytest.raises(UsageError, match="scenario"):
        request(scenario=scenario)


def test_a_queue_that_grows_without_end_fails_however_short_it_was_watched(files):
    asked = request(scenario=Scenario("server", 1, 1e7), limits_ms={95: 1e6})
    short = dataclasses.replace(asked, effort=dataclasses.replace(QUICK, max_seconds=3))
    report = LocalTarget(name="here").measure(files[:1], INPUTS, short)
    assert report.conditions["utilisation"]["a.onnx"] > 1
    found = to_json(report) | {"samples": None, "problems": []}
    budget = parse_budget({"latency": {"p95_ms": 1e6}})
    (check,) = target_checks(budget, found, report.samples)
    assert (check.outcome, "times as fast" in check.note) == ("fail", True)


def test_more_threads_than_cpus_is_one_message(files):
    with pytest.raises(UserError, match="4096 CPUs"):
        LocalTarget(name="big", num_threads=4096).measure(files, INPUTS, request())


def test_a_runtime_that_is_missing_is_one_message(files):
    runtime = Runtime(name="mine", model="distill.runtime:OnnxModel", options={"spin_faster": 1})
    with pytest.raises(UserError, match="spin_faster"):
        LocalTarget(name="here").measure(files, INPUTS, request(runtime=runtime))


def test_openvino_answers_as_onnxruntime_does(files):
    pytest.importorskip("openvino", reason="needs the `openvino` extra")
    model = "distill.deployment.device.openvino_model:OpenVinoModel"
    report = LocalTarget(name="here").measure(
        files, INPUTS, request(runtime=Runtime(name="openvino", model=model))
    )
    assert report.artefacts[0].golden["output_std"] < 1e-5
    assert report.artefacts[0].p50_latency_ms.estimate > 0


def bundle(folder, files, trees=None, **changes):
    plan = make_plan(files, request(**changes), num_threads=1, pin=False, spin=True)
    write_bundle(folder, files, INPUTS, plan, trees)
    return [sys.executable, "-s", "-m", "distill.deployment.device.runner"]


def test_a_bundle_with_a_changed_file_is_refused(files, tmp_path):
    command = bundle(tmp_path / "b", files)
    (tmp_path / "b" / "models" / "a.onnx").write_bytes(b"other")
    results, why = run_runner(command, progress=print, seconds=60, cwd=tmp_path / "b")
    assert results == []
    assert "models/a.onnx with sha256" in why


def test_what_a_runner_had_done_before_it_died_is_kept(files, tmp_path):
    command = bundle(tmp_path / "b", files, effort=dataclasses.replace(QUICK, cold_starts=500))
    plan, seen = str(tmp_path / "b" / "plan.json"), []  # a name that no other process has

    def kill_after_five(said):
        seen.append(said)
        if len(seen) == 5:
            subprocess.run(["pkill", "-9", "-f", plan], check=False)

    results, why = run_runner(
        [*command, plan], progress=kill_after_five, seconds=100, cwd=tmp_path / "b"
    )
    assert len(results) >= 5
    assert why is not None
    assert "code -9" in why


@pytest.mark.parametrize("last", ["cold", "measure"])
def test_what_this_machine_had_measured_before_a_step_failed_is_kept(files, monkeypatch, last):
    def fails_after(command, **options):
        results, _ = run_runner(command, **options)
        kinds = [result["step"] for result in results]
        return results[: kinds.index(last) + 1], "b.onnx: bus error"

    monkeypatch.setattr(local, "run_runner", fails_after)
    report = LocalTarget(name="here").measure(files, INPUTS, request())
    assert report.incomplete == "b.onnx: bus error"
    assert report.artefacts[0].cold_start_ms is not None
    assert (report.artefacts[1].p50_latency_ms is not None) == (last == "measure")


def test_a_machine_that_measures_nothing_is_one_message(files, monkeypatch):
    monkeypatch.setattr(local, "run_runner", lambda *_, **__: ([{"step": "machine"}], "bus error"))
    with pytest.raises(UserError, match=r"a\.onnx, b\.onnx on target here .* failed: bus error"):
        LocalTarget(name="here").measure(files, INPUTS, request())


@pytest.mark.slow
def test_a_runner_that_is_stuck_is_ended_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    stuck = f'sleep 600 & echo $! > {pid}; echo \'{{"step": "cold", "name": "a"}}\'; wait'
    results, why = run_runner(["sh", "-c", stuck], progress=print, seconds=2)
    assert len(results) == 1
    assert why == "it was ended after 2 s without a result"
    assert ended(int(pid.read_text()))


def test_a_runner_that_dies_leaves_no_step_behind(tmp_path):
    pid = tmp_path / "pid"
    dies = f"sleep 600 > /dev/null 2>&1 & echo $! > {pid}; kill -9 $$"
    _, why = run_runner(["sh", "-c", dies], progress=print)
    assert why == "the runner ended with code -9"
    assert ended(int(pid.read_text()))


def ended(pid):
    """Wait until a process has ended; nobody need have asked for it yet."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_slow_step_is_waited_for_as_long_as_the_runner_says():
    slow = """echo '{"step": "limit", "seconds": 60}'; sleep 3; echo '{"step": "done"}'"""
    results, why = run_runner(["sh", "-c", slow], progress=print, seconds=2)
    assert why is None
    assert [result["step"] for result in results] == ["limit", "done"]


def test_patience_grows_with_contenders_and_with_slow_models(files):
    def seconds(artefacts, slowest_ms, scenario=None):
        asked = request(scenario=scenario or Scenario())
        plan = make_plan(artefacts, asked, num_threads=1, pin=True, spin=True)
        return patience(plan, slowest_ms) - QUICK.max_seconds

    one = seconds(files[:1], 1.0)  # it and its control
    assert one > 2 * 600
    assert seconds(files, 1.0) == pytest.approx(1.5 * one)
    # 20 calls to warm up and 3 after each switch, at 30 s a call, of every contender.
    assert seconds(files, 30_000.0) > one + 3 * 23 * 30
    # A queue of 100 calls after at most 2,000 that let it form, ten seconds apart.
    assert seconds(files[:1], 1.0, Scenario("server", 1, 0.1)) > 2 * 2100 * 10


def measured_without_cold_starts(files, monkeypatch, capsys, first_run_ms, **values):
    """Run a plan whose steps are made up; return the measuring requests and the lines printed."""
    effort = dataclasses.replace(QUICK, cold_starts=0, **values)
    plan = make_plan(files, request(effort=effort, golden=False), num_threads=1, pin=0, spin=0)
    requests = []

    def step(asked, seconds=0.0):
        if asked["step"] == "cold":
            return {"first_run_ms": first_run_ms}
        requests.append(asked)
        taken = encode(np.ones((1, asked["calls"]), np.int64))
        return {"samples": {entry["name"]: taken for entry in asked["contenders"]}}

    monkeypatch.setattr(runner, "step", step)
    runner.run(plan, {"a.onnx": [], "b.onnx": []})
    return requests, capsys.readouterr().out


@pytest.mark.parametrize(("first_run_ms", "calls"), [(1000.0, 1), (40.0, 2), (0.01, 10)])
def test_slow_models_are_called_less_often_in_a_round(
    files, monkeypatch, capsys, first_run_ms, calls
):
    requests, out = measured_without_cold_starts(files, monkeypatch, capsys, first_run_ms)
    assert {asked["calls"] for asked in requests} == {calls}
    assert '"cold"' not in out  # nobody asked for cold starts


def test_every_measuring_process_is_told_how_long_to_warm_up(files, monkeypatch, capsys):
    requests, _ = measured_without_cold_starts(files, monkeypatch, capsys, 1.0, warm_up_seconds=7.5)
    assert [asked["warm_up_seconds"] for asked in requests] == [7.5] * QUICK.processes


def test_half_a_bundle_is_refused(files, tmp_path):
    command = bundle(tmp_path / "b", files)
    (tmp_path / "b" / "manifest.json").unlink()
    results, why = run_runner(command, progress=print, cwd=tmp_path / "b")
    assert results == []
    assert "Expected a manifest.json" in why
    (tmp_path / "b" / "manifest.json").write_text('{"files"')
    _, why = run_runner(command, progress=print, cwd=tmp_path / "b")
    assert "manifest.json is damaged" in why


def test_packages_that_a_device_keeps_are_pinned_too(files, tmp_path):
    here, there = tmp_path / "site", tmp_path / "cache" / "site-1"
    here.mkdir()
    (here / "code.py").write_text("good")
    shutil.copytree(here, there)
    command = bundle(tmp_path / "b", files, trees={str(there): here})
    (there / "__pycache__").mkdir()
    (there / "__pycache__" / "code.pyc").touch()
    assert run_runner(command, progress=print, cwd=tmp_path / "b")[1] is None
    (there / "code.py").write_text("evil")
    results, why = run_runner(command, progress=print, cwd=tmp_path / "b")
    assert results == []
    assert f"in {there} to be" in why
    assert "Remove it and measure again" in why


def test_openvino_is_asked_for_before_anything_is_done(files, monkeypatch):
    runtime = Runtime(name="openvino", model=f"{runner.OPENVINO}OpenVinoModel")
    plan = make_plan(files, request(runtime=runtime), num_threads=1, pin=True, spin=True)
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    monkeypatch.setattr(runner, "step", lambda *_, **__: pytest.fail("a step was started"))
    with pytest.raises(runner.StepError, match="pip install openvino"):
        runner.run(plan, {})


def test_results_in_a_file_are_read_and_half_a_line_is_left_out(tmp_path):
    lines = [json.dumps({"step": "machine", "cpus": [0]}), "Welcome to the board!", '{"step": "co']
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    results, why = read_results(tmp_path / "r.jsonl")
    assert [r["step"] for r in results] == ["machine"]
    assert "ends before" in why


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-4, "illegal instruction"), (132, "illegal instruction"), (-9, "killed, perhaps for memory")],
)
def test_a_signal_is_named(code, reason):
    assert read_answer(code, "", "") == (None, reason)
