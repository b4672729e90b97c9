"""Bundles for people to carry: written, run by hand as `run.sh` does, written anew."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from commands import REPOSITORY
from devices import MEASUREMENT, carried, run_by_hand
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

from distill.budget import Budget, LatencyBudget
from distill.deployment import portable as portable_module
from distill.deployment.device.table import table
from distill.deployment.measurement import Runtime
from distill.deployment.portable import Portable
from distill.deployment.wheels import own_packages
from distill.errors import UserError
from distill.training.fit import save_weights
from distill.training.models import ImageClassifier, PlainCNN
from distill.verbs.exporting.bundle import bundle_stage, wanted_bundle
from distill.verbs.run.workspace import Workspace


def test_a_bundle_says_what_it_is_and_what_it_is_held_against(written):
    readme = (written / "README.txt").read_text()
    assert len(readme.splitlines()) == 11
    assert "a.onnx, b.onnx" in readme
    assert json.loads((written / "budget.json").read_text())["size_bytes"] == 1000
    pinned = json.loads((written / "manifest.json").read_text())["files"]
    assert {"run.sh", "README.txt", "budget.json", "models/a.onnx", "plan.json"} <= set(pinned)


def test_a_changed_bundle_does_not_run(written, artefacts, inputs):
    (written / "inputs.npy").write_bytes(b"changed")
    ran = run_by_hand(written)
    assert ran.returncode == 1
    assert "It stopped early" in ran.stderr
    with pytest.raises(UserError, match=r"neither machine nor plan \(Expected inputs.npy with sha"):
        carried(written / "results.jsonl").measure(artefacts, inputs, MEASUREMENT)


def test_latencies_are_shown_beside_the_limits_of_the_budget(artefacts, inputs, tmp_path):
    limits = LatencyBudget(p50_ms=1e-6, p99_ms=1e4)
    asked = dataclasses.replace(MEASUREMENT, limits_ms={50: 1e-6}, gated=["a.onnx"])
    Portable().write(tmp_path / "b", artefacts, inputs, asked, Budget(latency=limits))
    ran = run_by_hand(tmp_path / "b")
    assert ran.returncode == 0, ran.stderr
    *_, head, first, second, last, done = ran.stderr.splitlines()
    assert head.split() == ["p50", "ms", "p95", "ms", "p99", "ms"]
    # 60 calls cannot tell whether a 99th percentile holds; no call takes a millionth of a ms.
    name, p50, fail, p95, p99, undecided = first.split()
    assert (name, fail, undecided) == ("a.onnx", "fail", "inconclusive")
    assert float(p50) <= float(p95) <= float(p99)
    assert len(second.split()) == 4  # may not ship: nothing is decided of it
    assert last.split() == ["at", "most", "1e-06", "-", "10000"]
    assert done == "Done. Carry results.jsonl back."


def test_a_table_says_what_numpy_and_the_gate_say():
    calls = np.arange(1, 1001).reshape(10, 100) * 1_000_000  # 1 to 1000 ms
    budget = {"latency": {"p50_ms": None, "p95_ms": 2000.0, "p99_ms": None}, "confidence": 0.95}
    shown = table({"m.onnx": [calls] * 5}, budget, {"gated": ["m.onnx"], "processes": 5})
    assert shown.splitlines()[1].split() == ["m.onnx", "500.500", "950.050", "pass", "990.010"]


def test_results_of_an_earlier_run_are_kept(written):
    for number in range(3):
        (written / "results.jsonl").write_text(f"run {number}")
        assert run_by_hand(written).returncode == 0
    kept = {path.name: path.read_text()[:5] for path in written.glob("results*")}
    assert kept == {
        "results-1.jsonl": "run 0",
        "results-2.jsonl": "run 1",
        "results-3.jsonl": "run 2",
        "results.jsonl": '{"sys',
    }


def test_packages_that_are_brought_along_are_pinned(artefacts, inputs, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "package.py").write_text("good")
    monkeypatch.setattr(portable_module, "site_packages", lambda *_, **__: site)
    folder = tmp_path / "bundle"
    device = Portable(architecture="x86_64", python="3.11")
    device.write(folder, artefacts, inputs, MEASUREMENT, Budget())
    assert run_by_hand(folder).returncode == 0
    (folder / "site" / "left_over.py").touch()
    ran = run_by_hand(folder)
    assert ran.returncode == 1
    assert "Expected the files in site to be" in ran.stderr
    (folder / "site" / "left_over.py").unlink()
    assert run_by_hand(folder).returncode == 0
    (folder / "site" / "package.py").unlink()
    assert run_by_hand(folder).returncode == 1


def test_openvino_is_never_brought_along(artefacts, inputs, tmp_path):
    asked = dataclasses.replace(MEASUREMENT, runtime=Runtime(name="openvino"))
    device = Portable(architecture="aarch64", python="3.11")
    with pytest.raises(UserError, match=r"runtime=onnxruntime.*Leave out `bundle\.architecture`"):
        device.write(tmp_path / "x", artefacts, inputs, asked, Budget())


@pytest.mark.slow
def test_a_bundle_for_a_known_device_needs_nothing_but_its_python(
    artefacts, inputs, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = []

    def own(*device, **options):
        asked.append((device, options))
        return own_packages()

    monkeypatch.setattr(portable_module, "site_packages", own)
    bundle = Portable(architecture="x86_64", python="3.11", download=True)
    bundle.write(tmp_path / "bundle", artefacts, inputs, MEASUREMENT, Budget())
    assert asked == [(("x86_64", "3.11"), {"wheels": None, "download": True})]
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    ran = run_by_hand(tmp_path / "bundle", bare / "bin" / "python")
    assert ran.returncode == 0, ran.stderr


def test_half_a_device_is_refused(artefacts, inputs, tmp_path):
    for half in ({"architecture": "aarch64"}, {"python": "3.11"}, {"download": True}):
        with pytest.raises(UserError, match=r"bundle\.architecture=aarch64 bundle\.python=3\.11"):
            Portable(**half).write(tmp_path / "x", artefacts, inputs, MEASUREMENT, Budget())
    assert not (tmp_path / "x").exists()


def test_the_stage_writes_the_bundle_once_and_anew_when_what_is_asked_changes(
    tmp_path, artefacts, inputs
):
    workspace = Workspace(DictConfig({"budget": {}}), tmp_path / "run", Console(quiet=True))
    result = bundle_stage(workspace, artefacts, inputs, MEASUREMENT, Portable())
    folder = tmp_path / "run" / "export" / "bundle"
    assert result["bundle"] == str(folder)
    assert result["artefacts"] == ["a.onnx", "b.onnx"]
    (folder / "mark").touch()
    assert bundle_stage(workspace, artefacts, inputs, MEASUREMENT, Portable()) == result
    assert (folder / "mark").exists()
    bundle_stage(workspace, artefacts, inputs, MEASUREMENT, Portable(num_threads=2))
    assert not (folder / "mark").exists()
    assert json.loads((folder / "plan.json").read_text())["num_threads"] == 2


@pytest.fixture
def stage(tmp_path, artefacts, inputs):
    """Run the stage; return the folder, in which a mark stays as long as it is not written anew."""
    workspace = Workspace(DictConfig({"budget": {}}), tmp_path / "run", Console(quiet=True))
    folder = tmp_path / "run" / "export" / "bundle"

    def run(portable=None):
        bundle_stage(workspace, artefacts, inputs, MEASUREMENT, portable or Portable())
        fresh = not (folder / "mark").exists()
        (folder / "mark").touch()
        return fresh, folder

    return run


@pytest.mark.parametrize(
    "name",
    ["models/a.onnx", "inputs.npy", "golden.npz", "run.sh", "distill/runtime.py", "manifest.json"],
)
def test_a_bundle_that_lacks_a_file_is_written_anew(stage, name):
    _, folder = stage()
    assert not stage()[0]
    (folder / name).unlink()
    assert stage()[0]
    assert (folder / name).is_file()
    assert not stage()[0]


def test_a_bundle_whose_packages_changed_is_written_anew(stage, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "package.py").write_text("good")
    monkeypatch.setattr(portable_module, "site_packages", lambda *_, **__: site)
    device = Portable(architecture="aarch64", python="3.11")
    _, folder = stage(device)
    (folder / "site" / "package.py").write_text("evil")
    assert stage(device)[0]
    assert (folder / "site" / "package.py").read_text() == "good"


def test_other_wheels_make_another_bundle(stage, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "numpy.whl").write_text("1")
    monkeypatch.setattr(portable_module, "site_packages", lambda *_, **__: wheels)
    device = Portable(architecture="aarch64", python="3.11", wheels=str(wheels))
    stage(device)
    assert not stage(device)[0]
    (wheels / "numpy.whl").write_text("longer")
    assert stage(device)[0]
    (wheels / "onnxruntime.whl").touch()
    assert stage(device)[0]


def bundle_options(*overrides):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("export", overrides=list(overrides)).bundle


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ([], None),
        (["bundle=true"], Portable()),
        (["bundle=false"], None),
        (["bundle.write=true"], Portable()),
        (["bundle.num_threads=4"], Portable(num_threads=4)),
        (["bundle.num_threads=1"], Portable()),
        (["bundle.spin=false"], Portable(spin=False)),
        (["bundle.write=false", "bundle.num_threads=4"], None),
        (
            ["bundle.write=false", "bundle.architecture=aarch64", "bundle.python=3.11"],
            None,
        ),
        (
            ["bundle.architecture=aarch64", "bundle.python=3.10"],
            Portable(architecture="aarch64", python="3.10"),
        ),
    ],
)
def test_any_option_asks_for_a_bundle_and_an_explicit_no_is_a_no(overrides, wanted):
    assert wanted_bundle(bundle_options(*overrides)) == wanted


def test_python_versions_are_read_as_they_are_meant_and_nonsense_is_refused():
    for given, meant in (("3.11", "3.11"), (3.11, "3.11"), (3.10, "3.10"), (3.9, "3.9")):
        asked = wanted_bundle(DictConfig({"architecture": "aarch64", "python": given}))
        assert asked == Portable(architecture="aarch64", python=meant)
    assert wanted_bundle(None) is None
    with pytest.raises(UserError, match=r"Unknown field `bundle\.arch`"):
        wanted_bundle(DictConfig({"arch": "aarch64"}))
    with pytest.raises(UserError, match="Expected `bundle` to be true or its options"):
        wanted_bundle("yes")


def test_a_checkpoint_from_elsewhere_is_bundled_too(cli, tmp_path):
    model = ImageClassifier(PlainCNN(10, 1, widths=(16, 24, 28)), [0.3], [0.4])
    save_weights({"state_dict": model.state_dict()}, tmp_path / "own.pt")
    ran = cli("export", "run_dir=run", "checkpoint=own.pt", "bundle.pin=false", "quantize=none")
    assert ran.code == 0, ran.stderr
    assert ran.document["bundle"] == str(tmp_path / "run" / "export" / "bundle")
    assert (tmp_path / "run" / "export" / "bundle" / "models" / "model.onnx").is_file()
