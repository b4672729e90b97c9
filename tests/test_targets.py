import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from test_intake import save

from distill.budget import parse_budget
from distill.deployment import validity
from distill.deployment.bundle import write_bundle
from distill.deployment.checks import target_checks
from distill.deployment.device.latency import Scenario
from distill.deployment.device.runner import read_answer, undecided
from distill.deployment.measurement import (
    PROCESS,
    Effort,
    Measurement,
    Runtime,
    make_plan,
    split_processes,
)
from distill.deployment.targets.local import LocalTarget
from distill.deployment.targets.stream import read_results, run_runner
from distill.errors import UsageError, UserError
from distill.files import to_json

QUICK = Effort(cold_starts=1, processes=2, rounds=3, max_seconds=20)
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
    # No call takes a nanosecond: decided at once. p99 needs 367 calls at least: not after 2 x 30.
    decided = LocalTarget(name="here").measure(files, INPUTS, request(limits_ms={50: 1e-6}))
    assert decided.conditions["processes"] == 2
    more = LocalTarget(name="here").measure(files, INPUTS, request(limits_ms={99: 1e4}))
    assert more.conditions["processes"] > 2


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
    "values", [{"rounds": 0}, {"processes": 0}, {"max_seconds": -1}, {"cold_starts": -1}]
)
def test_an_effort_that_measures_nothing_is_refused(values):
    with pytest.raises(UsageError, match="effort"):
        Effort(**values)


@pytest.mark.parametrize("scenario", [Scenario("s", 0), Scenario("s", 1, 0.0)])
def test_a_scenario_without_calls_is_refused(scenario):
    with pytest.raises(UsageError, match="scenario"):
        request(scenario=scenario)


def test_a_queue_that_grows_without_end_fails_however_short_it_was_watched(files):
    report = LocalTarget(name="here").measure(
        files[:1], INPUTS, request(scenario=Scenario("server", 1, 1e7), limits_ms={95: 1e6})
    )
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


def bundle(folder, files, **changes):
    plan = make_plan(files, request(**changes), num_threads=1, pin=False, spin=True)
    write_bundle(folder, files, INPUTS, plan)
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


def counters(**changes):
    calm = {
        "busy_s": 0.0, "steal_s": 0.0, "throttled": 0.0, "load": 0.5,
        "celsius": None, "throttle_flags": None,
    }  # fmt: skip
    return calm | changes


def found(after, before=None, reference=None, num_cpus=1):
    step = {"before": before or counters(), "after": counters(**after), "wall_s": 10.0}
    step["cpu_s"] = 10.0
    reference = [np.full((30, 10), 1000)] if reference is None else reference
    return validity.problems([step], reference, num_threads=1, num_cpus=num_cpus)


def test_a_calm_run_has_no_problems():
    assert found({"busy_s": 10.1}) == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"steal_s": 1.0}, "10.0% of a CPU"),
        ({"throttled": 3.0}, "3 periods"),
        ({"throttle_flags": 0x50005}, "under-voltage"),
        ({"throttle_flags": 0x50000}, "under-voltage"),
        ({"celsius": 85.0}, "85 degrees"),
        ({"busy_s": 12.0}, "other programs took 20.0% of a CPU"),
    ],
)
def test_what_disturbs_is_named(after, words):
    assert words in found(after)[0]


def test_a_board_that_was_throttled_before_the_run_is_not_blamed_for_it():
    assert found({"throttle_flags": 0x50000}, before=counters(throttle_flags=0x50000)) == []


def test_programs_on_cpus_that_are_free_disturb_nobody():
    assert found({"busy_s": 19.0}, num_cpus=2) == []


def test_drift_is_a_steady_change_and_not_noise(rng):
    rising = [np.linspace(1000, 1200, 60)[:, None] + rng.normal(0, 5, (60, 10))]
    assert "rose" in found({}, reference=rising)[0]
    assert found({}, reference=[rng.normal(1000, 100, (60, 10))]) == []
