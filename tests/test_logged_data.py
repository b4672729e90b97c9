"""Claims about `soft_labels data=prediction_log`, and about a student that begins with weights."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import SHORT
from feedback_logs import START, fill
from omegaconf import OmegaConf
from sqlalchemy import make_url

from distill.errors import UserError
from distill.files import read_json
from distill.production.prediction_log.connection import open_log
from distill.production.teacher_answers import read_answers
from distill.runtime import OnnxModel
from distill.verbs.production import logged_data
from distill.verbs.production.registry import champion_path, pinned

DAY = 86_400.0


@pytest.fixture
def logged(finished, data, tmp_path, monkeypatch):
    """The digits of the test set, as the finished run's student answered them; and the command."""
    run, _ = finished
    engine = open_log(f"sqlite:///{tmp_path}/log.db")
    monkeypatch.setattr("distill.verbs.production.logged_data.time.time", lambda: START + DAY)
    command = (
        "soft_labels",
        "data=prediction_log",
        f"data.url=sqlite:///{tmp_path}/log.db",
        f"data.artefact={run}/export/model.onnx",
        f"teacher.checkpoint={run}/train/teacher/best.pt",
        "run_dir=opinions",
        *SHORT,
    )

    def log(count):
        return fill(engine, run / "export/model.onnx", data.test.inputs[:count])

    yield log, command
    engine.dispose()


def test_a_teacher_in_torch_answers_what_production_asked(logged, finished, data, tmp_path, cli):
    log, command = logged
    records, run = log(60), finished[0]
    done = cli(*command).document
    assert (done["num_answers"], done["num_new"], done["num_classes"]) == (60, 60, 10)
    kept = read_answers(tmp_path / done["path"])
    expected = OnnxModel(run / "export/teacher.onnx").predict(data.test.inputs[:60])
    own = kept.logits_of([record.id for record in records])
    np.testing.assert_array_equal(own.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(own - own[:, :1], expected - expected[:, :1], rtol=0.01, atol=0.02)
    assert kept.classes == data.classes
    assert cli(*command).document["num_new"] == 0
    log(7)  # the same pictures asked again
    again = cli(*command).document
    assert (again["num_answers"], again["num_new"]) == (67, 7)


def test_monitor_reads_those_answers(logged, finished, tmp_path, cli):
    log, command = logged
    log(200)
    path = cli(*command).document["path"]
    ran = cli(
        "monitor",
        f"run={finished[0]}",
        "artefact=model.onnx",
        f"log.url=sqlite:///{tmp_path}/log.db",
        f"teacher.path={path}",
        f"until={START + DAY}",
    )
    assert ran.code in (0, 3, 4), ran.stderr
    assert "disagreement" in ran.document["found"]["label_free"]
    assert not any("opinion is lost" in text for text in ran.document["found"]["cannot_know"])


def test_a_log_without_inputs_of_the_model_says_so(logged, finished, cli):
    log, command = logged
    ran = cli(*command)
    assert ran.code == 1
    assert "Expected logged inputs of" in ran.stderr
    log(5)
    other = cli(*command, "data@data.base=sklearn_table", "data.base.name=digits")
    assert other.code == 1
    assert "data@data.base=" in other.stderr


@pytest.mark.parametrize("wrong", ["data.window_days=abc", "data.num_rows=-3", "data.num_rows=1.5"])
def test_numbers_that_are_none_are_refused(logged, cli, wrong):
    log, command = logged
    log(5)
    ran = cli(*command, wrong)
    assert ran.code == 2
    assert f"Expected `{wrong.partition('=')[0]}` to be a" in ran.stderr


def test_nobody_is_trained_on_what_judges(logged, cli):
    log, command = logged
    log(50)
    _, *settings = command
    ran = cli("train", *settings)
    assert ran.code == 2
    assert "`data=prediction_log` is what a teacher answers" in " ".join(ran.stderr.split())


BARELY = ("trainer.max_epochs=1", "optimizer.lr=1e-9", "seed=3")


def test_a_student_begins_with_the_weights_it_had(finished, cli):
    weights = f"start_from={finished[0]}/train/student/best.pt"
    had = read_json(finished[0] / "train.json")["student"]["test_at_best_epoch"]["accuracy"]
    own = cli("train", "control", weights, "run_dir=on", *BARELY).document["control"]
    assert own["test_at_best_epoch"]["accuracy"]["estimate"] == pytest.approx(
        had["estimate"], abs=0.03
    )
    fresh = cli("train", "control", "run_dir=off", *BARELY).document["control"]
    assert fresh["test_at_best_epoch"]["accuracy"]["estimate"] < 0.5 < had["estimate"]


def test_a_teacher_begins_with_the_weights_it_had(finished, cli):
    start = f"teacher_training.start_from={finished[0]}/train/teacher/best.pt"
    barely = ("teacher_training.trainer.max_epochs=1", "teacher_training.optimizer.lr=1e-9")
    had = read_json(finished[0] / "teacher.json")["test_at_best_epoch"]["accuracy"]["estimate"]
    own = cli("train", "teacher", start, "run_dir=on", *barely).document["teacher"]
    assert own["test_at_best_epoch"]["accuracy"]["estimate"] == pytest.approx(had, abs=0.03)


def test_a_champion_whose_teacher_is_no_network_says_so(home, register, promote, cli):
    register()
    promote()
    named = (f"registry.folder={home.folder}", f"registry.model={home.model}")
    ran = cli("train", "teacher", "teacher_training.start_from=champion", *named)
    assert ran.code == 1
    assert "Expected weights of the champion's teacher but its version has none" in ran.stderr


def test_a_promotion_meanwhile_changes_nothing_for_a_pipeline(home, register, promote):
    register()
    promote()
    node = {"folder": str(home.folder), "model": home.model, "tracking_uri": home.tracking_uri}
    cfg = OmegaConf.create(
        {
            "registry": node,
            "against": "champion",
            "start_from": "champion",
            "teacher_training": {"start_from": None},
        }
    )
    before = pinned(cfg)
    own = champion_path(cfg)
    register(num_wrong=0)
    promote(version=2, force=True, reason="meanwhile")
    assert champion_path(cfg) != own
    assert pinned(before) == before
    assert before.against == str(own)
    assert Path(before.start_from) == own.parents[1] / "train/student/best.pt"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("start_from=3",), "Expected weights of a student at `start_from=3`"),
        (("start_from=gone.pt",), "Expected weights of a student at `start_from=gone.pt`"),
        (("start_from=champion",), "Run `promote register"),
        (("start_from=RUN/train/teacher/best.pt",), "they do not fit"),
        (("start_from=RUN/train/student/best.pt", "student=resnet8"), "they do not fit"),
    ],
)
def test_weights_that_are_none_end_in_one_message(finished, cli, overrides, says):
    ran = cli("train", "control", *(own.replace("RUN", str(finished[0])) for own in overrides))
    assert ran.code == 1
    assert says in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_no_message_about_logged_inputs_holds_the_logs_password(monkeypatch):
    url, said = "postgresql://me:hunter2@host/db?sslpassword=hunter2", []

    class Database:
        def __init__(self):
            self.url = make_url(url)

        def dispose(self):
            pass

    def split(*_, where):
        said.append(where)
        raise UserError("stopped here")

    model = SimpleNamespace(classes=())
    base = SimpleNamespace(classes=(), unlabelled=None)
    monkeypatch.setattr(logged_data, "artefact_at", lambda path: SimpleNamespace(path=path))
    monkeypatch.setattr(logged_data, "open_model", lambda _: model)
    monkeypatch.setattr(logged_data, "open_log", lambda *_, **__: Database())
    monkeypatch.setattr(logged_data, "_drawn", lambda *_: (["1"], np.zeros((1, 2))))
    monkeypatch.setattr(logged_data, "logged_split", split)
    asked = {"artefact": "x.onnx", "registry": {}, "window_days": 1.0, "num_rows": 1}
    with pytest.raises(UserError, match="stopped here"):
        logged_data.prediction_log(base=base, url=url, **asked)
    assert said == ["postgresql://me:***@host/db"]
