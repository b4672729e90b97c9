"""Claims about the house itself: configs fit their classes, contracts hold, the wheel is whole."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY

from distill.cli import VERBS, config_dir

CONF = REPOSITORY / "conf"
FILLED_IN = {  # given by the caller, not by the YAML
    "distill.training.models.PlainCNN": {"num_classes", "in_channels"},
    "distill.training.models.CifarResNet": {"num_classes", "in_channels"},
    "distill.training.models.torchvision_classifier": {"num_classes", "in_channels"},
    "distill.training.table_models.MLP": {"num_classes", "layout"},
    "distill.training.series_models.TCN": {"num_classes", "layout"},
    "distill.training.data.feedback.feedback": {"base"},  # a group inside it
    "distill.verbs.production.logged_data.prediction_log": {"base"},
    "distill.training.modules.DistillationModule": {
        "student", "teacher", "losses", "optimizer", "scheduler",
    },
    "distill.training.baselines.predictions.saved_predictions": {"train", "test", "num_classes"},
    "distill.training.teachers.sources.onnx_teacher": {"data", "folder"},
    "distill.training.teachers.sources.sklearn_teacher": {"data", "folder"},
    "distill.training.teachers.sources.predictions_teacher": {"data", "folder"},
    "distill.deployment.quantize.auto.Auto": {"recipes"},
    "distill.deployment.deploy.kserve.KServe": {"repository"},
    "distill.training.optimizers.DistillationOrientedSGD": {"params"},
    **{
        f"distill.production.feedback.acquisition.{path.stem}": {"pool"}
        for path in (CONF / "strategy").glob("*.yaml")
    },
    "torch.optim.SGD": {"params"},
    "torch.optim.AdamW": {"params"},
    "torch.optim.lr_scheduler.OneCycleLR": {"optimizer", "total_steps"},
    "torch.optim.lr_scheduler.CosineAnnealingLR": {"optimizer"},
    "torch.optim.lr_scheduler.MultiStepLR": {"optimizer"},
    "torch.optim.lr_scheduler.ConstantLR": {"optimizer"},
}  # fmt: skip


def targets(node):
    """Find every mapping with a `_target_`, however deep."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def all_targets():
    for path in sorted(CONF.rglob("*.yaml")):
        for node in targets(yaml.safe_load(path.read_text())):
            yield pytest.param(node, id=f"{path.relative_to(CONF)}:{node['_target_']}")


@pytest.mark.parametrize("node", list(all_targets()))
def test_every_yaml_binds_the_signature_of_its_target(node):
    module, _, name = node["_target_"].rpartition(".")
    target = getattr(import_module(module), name)
    ours = ("defaults", "input_size")  # a student's images are resized to `input_size` by us
    arguments = {key: None for key in node if not key.startswith("_") and key not in ours}
    filled = {key: None for key in FILLED_IN.get(node["_target_"], ())}
    inspect.signature(target).bind(**arguments, **filled)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_module_its_config_and_its_launcher(verb):
    assert callable(import_module(f"distill.verbs.{verb}").run)
    assert (CONF / f"{verb}.yaml").exists()
    launcher = (REPOSITORY / "scripts" / f"{verb}.py").read_text()
    assert f'main(["{verb}", *sys.argv[1:]])' in launcher
    assert launcher.count(f"python scripts/{verb}.py") == 2  # two examples


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_torch(verb, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('help must not need torch')")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / f"{verb}.py", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"distill {verb}" in done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose launchers are started by a Python that has no `distill`."""
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")

    def start(*arguments):
        bare = [sys.executable, "-S", tmp_path / "scripts" / "pipeline.py", *arguments]
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            bare, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return start


def test_a_launcher_without_an_environment_says_how_to_make_one(checkout):
    done = checkout()
    assert done.returncode == 1
    assert "Run `make .venv/.installed` first" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_launcher_takes_the_checkout_s_environment(checkout, tmp_path):
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    done = checkout("student=mlp", "run_dir=a b")
    script = tmp_path / "scripts" / "pipeline.py"
    assert (done.returncode, done.stdout) == (0, f"{script} student=mlp run_dir=a b\n")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["benchmark", "predict"])
def test_what_only_runs_models_loads_no_torch(verb):
    code = f"import sys, distill.verbs.{verb}; print({{'torch', 'lightning'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("experiment", sorted(p.stem for p in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes(experiment, cli):
    ran = cli("pipeline", f"experiment={experiment}", "--cfg", "job")
    assert ran.code == 0, ran.stderr
    assert f"name: {experiment}" in ran.stdout


GROUPS_OF = {"export": {"deploy"}, "serve": {"rollout"}, "feedback": {"strategy"}}
ALL_GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment"}
GROUPS_OF["search"] = ALL_GROUPS - {*chain(*GROUPS_OF.values())}  # the pipeline's, and its own


@pytest.mark.parametrize("verb", GROUPS_OF)
def test_every_option_of_every_group_composes(verb, cli):
    options = {
        group: sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        for group in GROUPS_OF[verb]
    }
    for number in range(max(map(len, options.values()))):  # one of each group at a time
        chosen = [f"{group}={own[number % len(own)]}" for group, own in options.items()]
        ran = cli(verb, *chosen, "--cfg", "job")
        assert ran.code == 0, f"{chosen}: {ran.stderr}"


def test_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_modules_stay_readable():
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines())
        for path in (REPOSITORY / "distill").rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > 400} == {}
    launchers = [
        len(p.read_text().splitlines()) for p in (REPOSITORY / "scripts").glob("[a-z]*.py")
    ]
    assert max(launchers) <= 15


def sources():
    for folder in ("distill", "scripts", "conf", "tests", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".html", ".md"):
                yield path


def test_nothing_is_unpickled_and_no_template_is_unescaped():
    forbidden = re.compile(
        r"weights_only=False|allow_pickle=True|pickle\.load|\|\s*safe\b|autoescape=False"
    )
    found = [
        str(p)
        for p in sources()
        if p.name != Path(__file__).name and forbidden.search(p.read_text())
    ]
    assert found == []


def test_the_lock_has_hashes_and_names_no_index():
    lock = (REPOSITORY / "requirements.lock").read_text()
    requirements = re.findall(r"^[\w.-]+==", lock, flags=re.MULTILINE)
    assert len(requirements) > 50
    assert lock.count("--hash=sha256:") >= len(requirements)
    assert "://" not in lock
    assert "index-url" not in lock


def test_commands_in_the_readme_are_of_this_checkout():
    text = (REPOSITORY / "README.md").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", text, flags=re.MULTILINE)):
        assert f"\n{target}:" in makefile
    for verb in set(re.findall(r"scripts/(\w+)\.py", text)):
        assert verb in VERBS
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (REPOSITORY / path).exists(), path


@pytest.mark.slow
def test_the_wheel_carries_its_configuration_and_helps_in_an_empty_environment(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    source = tmp_path / "source"
    shutil.copytree(
        REPOSITORY, source, ignore=shutil.ignore_patterns(".venv", ".git", "outputs", ".*cache")
    )

    def run(*command, **options):
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    build = ("build", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run(uv, *build, "--out-dir", tmp_path / "dist", cwd=source)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty")
    python = tmp_path / "empty" / "bin" / "python"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(uv, "pip", "install", "--python", python, "--no-deps", wheel)
    run(uv, "pip", "install", "--python", python, "hydra-core==1.3.8")
    shutil.rmtree(source)
    out = run(tmp_path / "empty" / "bin" / "distill", "pipeline", "--help", cwd=tmp_path)
    assert re.search(r"experiment +cifar10, digits, feedback", out)
    installed = next((tmp_path / "empty").rglob("site-packages/distill/conf"))
    names = {str(p.relative_to(installed)) for p in installed.rglob("*.yaml")}
    assert names == {str(p.relative_to(CONF)) for p in CONF.rglob("*.yaml")}
    assert config_dir() == CONF
