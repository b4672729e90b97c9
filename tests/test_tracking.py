import json
import shutil
from pathlib import Path

import pytest
from commands import SHORT

from distill.production.registry.connection import UnreachableError, connect
from distill.production.registry.tracking import Record, flat, keep
from distill.training.loggers import ForgivingMLFlowLogger

pytestmark = pytest.mark.slow


@pytest.fixture
def uri(tmp_path, mlflow_database):
    shutil.copy(mlflow_database, tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def record(folder, settings):
    (folder / "export").mkdir()
    (folder / "export/model.onnx").write_bytes(b"model")
    (folder / "report.html").write_text("<p>report")
    return Record(
        experiment="digits",
        name="pipeline",
        settings=settings,
        figures={"student_accuracy": 0.9},
        tags={"distill.verdict": "pass"},
        files=(folder / "report.html", folder / "export"),
    )


def test_a_record_is_one_run_with_settings_figures_and_files(tmp_path, uri):
    many = {f"key{i}": {"lr": i} for i in range(150)}  # more than MLflow takes at once
    run_id = keep(uri, record(tmp_path, many), tmp_path / "files")
    run = connect(uri).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["key149.lr"] == "149"
    assert len(run.data.params) == 150
    assert run.data.metrics == {"student_accuracy": 0.9}
    root = tmp_path / "files" / run_id / "artifacts"
    assert (root / "report.html").read_text() == "<p>report"
    assert (root / "export/model.onnx").read_bytes() == b"model"


def test_settings_are_named_with_dots_and_cut_to_what_mlflow_takes():
    assert flat({"a": {"b": 1, "c": {}}, "d": None, "e": "x" * 9000}) == {
        "a.b": "1", "a.c": "{}", "d": "None", "e": "x" * 500,
    }  # fmt: skip


def test_an_unreachable_server_is_told(tmp_path):
    with pytest.raises(UnreachableError, match="Connection refused"):
        keep("http://127.0.0.1:9", record(tmp_path, {}), tmp_path)


def test_curves_reach_a_database_and_its_files_are_named_by_their_whole_path(tmp_path, uri):
    logger = ForgivingMLFlowLogger("digits", "student", uri)
    logger.log_metrics({"loss": 2.0}, step=0)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize()
    client = connect(uri)
    history = client.get_metric_history(logger.version, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 2.0), (1, 1.0)]
    assert Path(client.get_experiment(logger.name).artifact_location).is_absolute()


def test_a_server_that_is_away_costs_the_curves_and_is_said_once(caplog):
    logger = ForgivingMLFlowLogger("digits", "student", "http://me:hunter2@127.0.0.1:9")
    assert logger.experiment is None
    logger.log_metrics({"loss": 2.0})
    logger.log_hyperparams({"lr": 1})
    logger.finalize()
    assert (logger.name, logger.version) == (None, None)
    (said,) = [r.getMessage() for r in caplog.records if "the training goes on" in r.getMessage()]
    assert "hunter2" not in said


@pytest.mark.slow
def test_a_pipeline_is_in_mlflow_once_and_ends_without_it(finished, cli, tmp_path, uri):
    run_dir, ran = finished
    shutil.copytree(run_dir, tmp_path / "run")
    # An absolute URI: MLflow keeps one store for `sqlite:///mlflow.db`, whatever folder it is now.
    there = ("logger=mlflow", f"logger.mlflow.tracking_uri={uri}")
    for _ in range(2):
        done = cli("pipeline", "run_dir=run", *SHORT, *there)
        assert done.code == ran.code, done.stderr
    client = connect(uri)
    experiment = client.get_experiment_by_name("digits")
    (run,) = client.search_runs([experiment.experiment_id])
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    for role in ("student", "control", "teacher", "baseline"):
        expected = verdict["models"][role]["accuracy"]
        assert run.data.metrics[f"{role}_accuracy"] == pytest.approx(expected)
    assert {"student_p50_latency_ms", "student_p95_latency_ms", "student_size_bytes"} <= {
        *run.data.metrics
    }
    assert run.data.metrics["distillation_gain"] == verdict["distillation_gain"]["estimate"]
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {
        "config.yaml", "export", "report.html", "report.md", "verdict.json",
    }  # fmt: skip
    away = "logger.mlflow.tracking_uri=http://127.0.0.1:9"
    done = cli("pipeline", "run_dir=run", *SHORT, "logger=mlflow", away)
    assert (done.code, done.document) == (ran.code, ran.document)
    assert "The verdict stands, but is not in MLflow" in done.stderr
    assert "Connection refused" in done.stderr
