"""Results of a bundle that were carried back."""

import shutil

import pytest
from devices import MEASUREMENT, carried, make_model, run_by_hand
from omegaconf import OmegaConf
from rich.console import Console

from distill.deployment.device.latency import Scenario
from distill.deployment.measurement import Measurement, Runtime
from distill.errors import UserError
from distill.files import sha256
from distill.verbs.exporting.measuring import benchmark_stage
from distill.verbs.run.workspace import Workspace


@pytest.fixture(scope="module")
def measured():
    """What a device said, by the files that it measured: these are the same in every test."""
    return {}


@pytest.fixture
def results(written, artefacts, measured):
    made = tuple(sha256(path) for path in artefacts)
    if made not in measured:
        assert run_by_hand(written).returncode == 0
        measured[made] = (written / "results.jsonl").read_bytes()
    (written / "results.jsonl").write_bytes(measured[made])
    return written / "results.jsonl"


def test_a_carried_bundle_comes_back_as_a_report(written, artefacts, inputs, tmp_path):
    there = tmp_path / "a 'device' with \"odd\" $(names)"
    shutil.copytree(written, there)
    ran = run_by_hand(there)
    assert ran.returncode == 0, ran.stderr
    assert "golden a.onnx\n" in ran.stderr
    assert "Done. Carry results.jsonl back." in ran.stderr
    assert ran.stdout == ""
    back = artefacts[::-1]  # in another order than measured
    report = carried(there / "results.jsonl").measure(back, inputs, MEASUREMENT)
    assert report.target == "board"
    assert report.incomplete is None
    assert [row.artefact for row in report.artefacts] == ["a.onnx", "b.onnx"]
    assert report.artefacts[1].num_samples > 0
    assert report.artefacts[1].golden["max_abs"] < 1e-5
    assert report.noise_floor.estimate > 0


def test_results_of_a_device_that_died_are_kept_and_say_so(results, artefacts, inputs):
    lines = results.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if '"step": "measure"' in line)
    results.write_text("\n".join([*lines[: first + 1], lines[first + 1][:100]]))
    report = carried(results).measure(artefacts, inputs, MEASUREMENT)
    assert "ends before the measurement does" in report.incomplete
    assert report.artefacts[0].num_samples > 0
    assert report.conditions["processes"] == 1


def test_results_of_other_models_are_refused(results, artefacts, inputs, tmp_path):
    with pytest.raises(UserError, match=r"results of a\.onnx in .* they are of a\.onnx, b\.onnx"):
        carried(results).measure(artefacts[:1], inputs, MEASUREMENT)
    make_model(tmp_path / "b.onnx", seed=9)
    with pytest.raises(UserError, match=r"the b\.onnx that was measured is another file"):
        carried(results).measure(artefacts, inputs, MEASUREMENT)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"scenario": Scenario("offline", 8)}, "scenario"),
        ({"runtime": Runtime(name="other", model="other:Model")}, "runtime"),
        ({"runtime": Runtime(options={"precision": "bf16"})}, "runtime options"),
    ],
)
def test_results_of_other_settings_are_refused(changes, what, results, artefacts, inputs):
    other = Measurement(confidence=0.95, **changes)
    with pytest.raises(UserError, match=f"Expected results of {what} "):
        carried(results).measure(artefacts, inputs, other)


@pytest.mark.parametrize("damage", [("data", "dat"), ("contenders", "x"), ('"shape": [', '"s": [')])
def test_damaged_results_are_one_message(damage, results, artefacts, inputs):
    results.write_text(results.read_text().replace(*damage))
    with pytest.raises(UserError, match=r"damaged .* Copy the file again"):
        carried(results).measure(artefacts, inputs, MEASUREMENT)


def test_a_benchmark_of_carried_results_depends_on_their_content(
    results, artefacts, inputs, tmp_path
):
    cfg = OmegaConf.create(
        {
            "budget": {},
            "seed": 0,
            "target": {
                "_target_": "distill.deployment.targets.carried.CarriedTarget",
                "name": "board",
                "results": str(results),
            },
            "scenario": {"_target_": "distill.deployment.device.latency.Scenario"},
            "runtime": {"_target_": "distill.deployment.measurement.Runtime"},
            "effort": {"_target_": "distill.deployment.measurement.Effort"},
        }
    )
    workspace = Workspace(cfg, tmp_path / "run", Console(quiet=True))
    assert benchmark_stage(workspace, artefacts, inputs)["conditions"]["processes"] == 2
    lines = results.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if '"step": "measure"' in line)
    results.write_text("\n".join(lines[: first + 1]))  # of another run
    assert benchmark_stage(workspace, artefacts, inputs)["conditions"]["processes"] == 1
    results.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        benchmark_stage(workspace, artefacts, inputs)


def test_missing_and_empty_results_are_one_message(artefacts, inputs, tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        carried(tmp_path / "results.jsonl").measure(artefacts, inputs, MEASUREMENT)
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(UserError, match="neither machine nor plan"):
        carried(tmp_path / "results.jsonl").measure(artefacts, inputs, MEASUREMENT)
