import errno
import json
import sqlite3
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from commands import SHORT
from hydra.errors import InstantiationException

import distill
from distill.cli import VERBS
from distill.errors import UserError
from distill.verbs import doctor


def test_help_lists_every_verb(cli):
    ran = cli("--help")
    assert ran.code == 0
    assert all(verb in ran.stdout for verb in VERBS)
    assert cli().code == 2
    assert cli("--version").stdout.strip() == distill.__version__


@pytest.mark.parametrize(
    ("verb", "there", "not_there"),
    [
        (
            "serve",
            ("# 0 takes a free one", "rollout   ab, canary, shadow", "# that it has"),
            "student",
        ),
        ("experiment", ("# or postgresql://", "[decide|plan]"), "groups"),
        ("promote", ("# a tie is within it", "registry  local"), "rollout"),
        ("pipeline", ("student ", "# first folder under outputs/"), "rollout"),
    ],
)
def test_help_shows_a_verbs_own_groups_and_its_comments(cli, verb, there, not_there):
    ran = cli(verb, "--help")
    assert ran.code == 0
    assert all(text in ran.stdout for text in there)
    assert not_there not in ran.stdout.partition("groups, ")[2]


def test_an_action_is_one_word_wherever_it_stands(cli):
    ran = cli("promote", "registry.folder=X", "rollback")
    assert (ran.code, "registry at X/" in ran.stderr) == (1, True)
    ran = cli("promote", "registry.folder=X", "rolback")
    assert (ran.code, "Did you mean `rollback`" in ran.stderr) == (2, True)
    ran = cli("promote", "rollback", "history")
    assert (ran.code, "Expected one action" in ran.stderr) == (2, True)


def test_import_pulls_nothing_heavy():
    heavy = "{'torch', 'hydra', 'numpy', 'onnxruntime'}"
    code = f"import sys, distill, distill.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipelin"], "Did you mean `pipeline`"),
        (["train", "teachr"], "Did you mean `teacher`"),
        (["baseline", "anotate"], "Did you mean `annotate`"),
        (["evaluate", "now"], "`evaluate` has none"),
        (["serve", "prot=8101"], "Unknown config key `prot`. Did you mean `port`"),
        (["serve", "rollot=canary"], "Did you mean `rollout`"),
        (["pipeline", "seeed=3"], "Unknown config key `seeed`. Did you mean `seed`"),
        (["pipeline", "optimizer.lrr=1"], "Did you mean `optimizer.lr`"),
        (["pipeline", "data=digitz"], "Unknown option `data=digitz`. Did you mean `digits`"),
        (["pipeline", "budget.latency.p59_ms=1"], "`budget.latency.p95_ms`"),
        (["pipeline", "+budget.latncy.p95_ms=1"], "Unknown field `budget.latncy`"),
        (["pipeline", "data=parquet_images"], "Expected a value for `data.root`"),
        (["pipeline", "student._target_=nowhere.Net"], "nowhere.Net"),
        (["pipeline", "student.widths=3"], "Expected `student` to be usable"),
        (["pipeline", "optimizer.lr=fast"], "Expected `optimizer` to be usable"),
        (["benchmark"], "Expected a value for `artefacts`"),
        (["baseline", "baselines=[majority]"], "Did you mean `majority_class`"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_2(cli, arguments, message):
    ran = cli(*arguments)
    assert ran.code == 2, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipeline", "data=image_folder", "data.root=nowhere"], "`data.root=nowhere`"),
        (["pipeline", "data=cifar10"], "cifar-10-python.tar.gz"),
        (["pipeline", "loss.kd.temperature=-1"], "`temperature` > 0"),
        (["pipeline", "teacher.checkpoint=nope.pt"], "nope.pt"),
        (["export"], "Run `train`"),
        (["benchmark", "artefacts=[nope.onnx]"], "nope.onnx but there is none"),
        (["predict", "artefact=nope.onnx", "input=."], "nope.onnx but there is none"),
    ],
)
def test_bad_input_is_one_message_and_exit_1(cli, arguments, message):
    ran = cli(*arguments)
    assert ran.code == 1, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_a_run_that_never_started_leaves_no_files(cli, tmp_path):
    cli("pipeline", "data=image_folder", "data.root=nowhere")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_traceback_is_there_for_those_who_ask(cli, monkeypatch):
    monkeypatch.setenv("DISTILL_TRACEBACK", "1")
    ran = cli("export")
    assert "Traceback" in ran.stderr


def test_a_loss_that_explodes_stops_at_once_and_keeps_what_was_good(cli, tmp_path):
    ran = cli("train", "run_dir=run", "optimizer.lr=1e30", *SHORT)
    assert ran.code == 1
    assert "Expected a finite" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "run/train/teacher/best.pt").exists()
    assert not (tmp_path / "run/train/control/best.pt").exists()


def test_a_config_folder_of_ones_own_may_be_named_anywhere(cli, tmp_path):
    (tmp_path / "mine" / "budget").mkdir(parents=True)
    (tmp_path / "mine" / "budget" / "board.yaml").write_text("latency: {p95_ms: 7.5}\n")
    ran = cli("pipeline", "seed=3", "--config-dir", "mine", "budget=board", "--cfg", "job")
    assert ran.code == 0, ran.stderr
    assert "p95_ms: 7.5" in ran.stdout
    assert "seed: 3" in ran.stdout


def test_secrets_are_redacted_in_the_run_folder(cli, tmp_path):
    cli(
        "baseline",
        "run_dir=run",
        "+logger.x.api_token=hunter2",
        "+logger.x.uri=postgresql://me:hunter2@localhost/db",
    )
    text = (tmp_path / "run/config.yaml").read_text()
    assert "hunter2" not in text
    assert "me:<redacted>@localhost" in text


@pytest.mark.slow
def test_multirun_runs_each_value_and_prints_one_document(cli, tmp_path):
    secret = "+logger.x.api_token=hunter2"
    ran = cli("baseline", "-m", "seed=0,1", "baselines=[majority_class]", secret)
    assert ran.code == 0, ran.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hunter2" in path.read_bytes()]
    assert [run["best"] for run in ran.document["runs"]] == ["majority_class"] * 2
    assert len(list(tmp_path.glob("outputs/digits/*/*/baseline.json"))) == 2


@pytest.mark.slow
def test_a_users_own_network_from_the_working_folder_and_an_edit_of_it(cli, tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, width):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(),\n"
        "                         nn.Linear(width, num_classes))\n"
    )
    overrides = ["student._target_=mine.Net", "~student.widths", "+student.width=16"]
    ran = cli("train", "run_dir=run", *overrides, *SHORT)
    assert ran.code == 0, ran.stderr
    assert ran.document["student"]["num_parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    source.write_text(source.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    sys.modules.pop("mine", None)
    edited = cli("train", "run_dir=run", *overrides, *SHORT)
    assert "train/teacher: unchanged" in edited.stderr
    for role in ("control", "student"):
        assert f"train/{role}: unchanged" not in edited.stderr
        assert edited.document[role]["seeds"] != ran.document[role]["seeds"]
    assert "student: unchanged" in cli("train", "run_dir=run", *overrides, *SHORT).stderr


@pytest.mark.slow
def test_early_stopping_clipping_accumulation_schedules_and_loggers_are_lightnings(cli, tmp_path):
    ran = cli(
        "train",
        "teacher",
        "run_dir=run",
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "teacher_training.trainer.max_epochs=50",
        "teacher_training.trainer.gradient_clip_val=0.5",
        "teacher_training.trainer.accumulate_grad_batches=2",
        "scheduler@teacher_training.scheduler=cosine",
        "logger=[csv,tensorboard,mlflow]",
    )
    assert ran.code == 0, ran.stderr
    assert ran.document["teacher"]["last_epoch"] < 49
    history = json.loads((tmp_path / "run/train/teacher/history.json").read_text())
    rates = [epoch["learning_rate"] for epoch in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    assert (tmp_path / "run/logs/teacher/metrics.csv").exists()
    assert list((tmp_path / "run/logs/teacher").glob("events.out.*"))
    assert (tmp_path / "mlflow.db").exists()


@pytest.fixture
def verb(monkeypatch):
    """Give a verb something else to do."""
    return lambda does: monkeypatch.setattr(doctor, "run", does)


def test_a_file_of_the_working_folder_never_stands_for_a_package(cli, tmp_path, verb):
    found = {}

    def look(_):
        for name in ("optuna", "mine"):
            spec = PathFinder.find_spec(name)
            found[name] = spec is not None and Path(str(spec.origin)).parent == tmp_path
        return {}

    for name in ("optuna", "mine"):
        (tmp_path / f"{name}.py").write_text("")
    verb(look)
    cli("doctor")
    assert found == {"optuna": False, "mine": True}


def test_no_message_and_no_traceback_holds_a_password(cli, verb, monkeypatch):
    for kind, code in ((UserError, 1), (RuntimeError, 1)):
        for shows in ("0", "1"):
            monkeypatch.setenv("DISTILL_TRACEBACK", shows)

            def fail(_, kind=kind):
                raise kind(f"no {'postgresql://me:hun'}ter2@host/db?password={'hun'}ter2")

            verb(fail)
            ran = cli("doctor")
            assert ran.code == code
            assert "me:<redacted>@host" in ran.stderr
            assert "hunter2" not in ran.stderr


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
        InstantiationException("Error in call to target", OSError(errno.EDQUOT, "Quota")),
        RuntimeError("while saving", OSError(errno.EFBIG, "File too large")),
    ],
)
def test_a_full_disk_is_one_message_wherever_it_shows(cli, verb, error):
    def fail(_):
        if len(error.args) > 1 and isinstance(error.args[1], OSError):
            raise error from error.args[1]
        raise error

    verb(fail)
    ran = cli("doctor")
    assert ran.code == 1
    assert "error: The disk is full" in ran.stderr
    assert "Traceback" not in ran.stderr


def in_a_terminal(cli, monkeypatch, document, folder):
    """Let a verb end with a document where stdout is a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(
        doctor, "run", lambda cfg: cfg.update(run_dir=folder and str(folder)) or document
    )
    return cli("doctor")


def test_a_terminal_is_told_where_a_long_document_lies(cli, monkeypatch, tmp_path):
    document = {"verdict": "fail", "checks": [{"name": "x" * 100, "limit": None}] * 20}
    (tmp_path / "first.json").write_text("{}")
    (tmp_path / "verdict.json").write_text(json.dumps(document))
    ran = in_a_terminal(cli, monkeypatch, document, tmp_path)
    assert (ran.code, ran.stdout) == (3, f"result: {tmp_path / 'verdict.json'}\n")


@pytest.mark.parametrize("length", [10, 2000])
def test_a_terminal_is_shown_what_is_short_or_lies_nowhere(cli, monkeypatch, tmp_path, length):
    document = {"verdict": "pass", "why": "x" * length}
    assert in_a_terminal(cli, monkeypatch, document, tmp_path).document == document


@pytest.mark.parametrize(
    "name", ["not_json.json", "empty.json", "folder.json", "dangling.json", "deep.json"]
)
def test_other_files_of_the_working_folder_are_nothing_to_a_verb(cli, monkeypatch, tmp_path, name):
    document = {"verdict": "pass", "why": "x" * 2000}
    text = {"not_json.json": "// tsconfig\n" + "x" * 2010, "deep.json": "[" * 2026}
    if name == "folder.json":
        (tmp_path / name).mkdir()
    elif name == "dangling.json":
        (tmp_path / name).symlink_to("nowhere")
    else:
        (tmp_path / name).write_text(text.get(name, ""))
    for folder in (None, tmp_path):
        ran = in_a_terminal(cli, monkeypatch, document, folder)
        assert (ran.code, ran.document) == (0, document), ran.stderr


def test_files_that_are_no_document_by_their_length_are_not_read(cli, monkeypatch, tmp_path):
    document = {"verdict": "pass", "why": "x" * 2000}
    (tmp_path / "huge.json").write_text(json.dumps([0] * 10_000))
    (tmp_path / "result.json").write_text(json.dumps(document, indent=2))
    read, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or real(path))
    ran = in_a_terminal(cli, monkeypatch, document, tmp_path)
    assert ran.stdout == f"result: {tmp_path / 'result.json'}\n"
    assert read == ["result.json"]


def test_what_is_piped_is_the_document(cli, monkeypatch, tmp_path):
    document = {"verdict": "pass", "why": "x" * 2000}
    (tmp_path / "verdict.json").write_text(json.dumps(document))
    monkeypatch.setattr(doctor, "run", lambda cfg: cfg.update(run_dir=str(tmp_path)) or document)
    assert cli("doctor").document == document


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["pipeline", "train", "soft_labels", "search"])
def test_data_that_are_not_there_are_told_before_what_trains_is_imported(tmp_path, verb):
    code = (
        "import sys; from distill.cli import main\n"
        f"try: main(['{verb}', 'data=image_folder', 'data.root=nowhere', 'run_dir=run'])\n"
        "except SystemExit: print({'lightning', 'torchvision'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert "at `data.root=nowhere` but there is none" in done.stderr
    assert done.stdout == "set()\n"
