"""Numbers, several labels and series from data to verdict, as a user runs them."""

import numpy as np
import pandas as pd
import pytest
from commands import BRIEF, run_cli
from sklearn.metrics import mean_squared_error

from distill.deployment.naive import NAIVE
from distill.files import read_json
from distill.runtime import OnnxModel
from distill.training.data.generated_series import generated_series
from distill.training.data.tables import sklearn_table, table

pytestmark = pytest.mark.slow

QUICK = (*BRIEF, "preflight=false", "quantize=none", "trainer.max_epochs=12")
SERIES = ("data.length=700", "data.num_series=2", "data.window=24", "data.horizon=6")
FOREST = ("teacher.regressor.n_estimators=40", "teacher.regressor.n_jobs=1", "teacher.folds=2")
# One tree model in place of the ensemble: what is tested is not the teacher.
ONE = ("teacher=sklearn", *FOREST)


def pipeline(folder, *arguments):
    done = run_cli("pipeline", "run_dir=run", *arguments, cwd=folder)
    assert done.code in (0, 3, 4), done.stderr
    return done.document


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diabetes")
    experiment = ("experiment=table_ensemble", "data.name=diabetes")
    return folder, pipeline(folder, *experiment, *FOREST, *QUICK)


@pytest.fixture(scope="module")
def seasonal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seasonal")
    return folder, pipeline(folder, "experiment=series", *ONE, *SERIES, *QUICK)


def test_the_rmse_of_the_verdict_is_that_of_the_exported_file_in_the_labels_own_units(diabetes):
    folder, verdict = diabetes
    test = sklearn_table(name="diabetes", test_fraction=0.3, validation_fraction=0.2).test
    model = OnnxModel(folder / "run/export/model.onnx")
    assert model.output_names == ["predictions"]
    answers = model.predict(test.records)
    expected = np.sqrt(mean_squared_error(test.labels, answers))
    assert verdict["metric"] == "rmse"
    assert verdict["models"]["student"]["rmse"] == pytest.approx(expected, rel=1e-6)
    assert expected < test.labels.std()  # it has learnt something


def test_a_drop_is_the_share_by_which_the_teacher_errs_less(diabetes):
    _, verdict = diabetes
    models = verdict["models"]
    (check,) = [c for c in verdict["checks"] if c["name"] == "drop_vs_teacher"]
    expected = 1 - models["teacher"]["rmse"] / models["student"]["rmse"]
    assert check["measured"] == pytest.approx(expected, abs=1e-9)
    low, high = check["interval"]
    assert low < expected < high


def test_the_report_of_numbers_speaks_of_rmse_and_of_no_accuracy(diabetes):
    folder, verdict = diabetes
    report = (folder / "run/report.html").read_text()
    assert "RMSE" in verdict["did_distillation_help"]
    assert "Answers against labels" in report
    assert "Calibration" not in report
    assert "accuracy" not in report


def test_weights_of_other_labels_mean_and_scale_are_refused(diabetes, cli):
    folder, _ = diabetes
    weights = folder / "run/train/student/best.pt"
    arguments = ("experiment=table_ensemble", "data.name=diabetes", "teacher=mlp", "seed=1")
    network = ("teacher.network.widths=[64,32]", f"teacher.checkpoint={weights}")
    ran = cli("train", "teacher", *arguments, *network)
    assert ran.code == 1
    assert "that answer in these labels' mean and scale" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_several_labels_are_told_at_once(tmp_path, rng):
    rows = pd.DataFrame(rng.normal(size=(300, 3)), columns=["x", "y", "z"])
    rows["warm"] = (rows.x + 0.1 * rng.normal(size=300) > 0).astype(int)
    rows["wet"] = (rows.y * rows.z > 0).astype(int)
    rows.to_csv(tmp_path / "days.csv", index=False)
    data = ("data=table", "data.path=days.csv", "data.label=[warm,wet]")
    teacher = ("teacher.estimator.n_estimators=30", "teacher.estimator.n_jobs=1", "teacher.folds=2")
    verdict = pipeline(tmp_path, "experiment=table_ensemble", *data, *teacher, *QUICK)
    assert verdict["metric"] == "label_accuracy"
    with np.load(tmp_path / "run/predictions/test_logits.npz") as arrays:
        right = (arrays["student"] > 0) == (arrays["label"] > 0)
    assert verdict["models"]["student"]["label_accuracy"] == pytest.approx(right.mean())
    assert right[:, 0].mean() > 0.9  # `warm` is easy


def test_on_a_seasonal_series_the_student_beats_the_seasonal_naive_forecast(seasonal):
    folder, verdict = seasonal
    evaluation = read_json(folder / "run/evaluate.json")
    gain = evaluation["margins"]["student"]["gain_vs_baselines"]["seasonal_naive"]
    assert gain["interval"][0] > 0
    assert verdict["did_it_beat_naive"].startswith("The student beats the naive forecast")


def test_a_forecast_file_takes_raw_windows_and_answers_in_the_values_unit(seasonal):
    folder, verdict = seasonal
    data = generated_series(
        length=700, num_series=2, window=24, horizon=6, stride=2, test_fraction=0.25,
        known=["weekend"],
    )  # fmt: skip
    model = OnnxModel(folder / "run/export/model.onnx")
    answers = model.predict(data.test.records)
    expected = np.sqrt(np.mean((answers - data.test.labels) ** 2))
    assert verdict["models"]["student"]["rmse"] == pytest.approx(expected, rel=1e-5)


def test_on_a_random_walk_the_report_says_that_nothing_beats_the_last_value(tmp_path):
    walk = ("data.kind=random_walk", "data.known=[]")
    verdict = pipeline(tmp_path, "experiment=series", *walk, *ONE, *SERIES, *QUICK)
    said = "Nothing beats the last value here"
    assert verdict["did_it_beat_naive"].startswith(said)
    assert said in (tmp_path / "run/report.html").read_text()
    assert said in (tmp_path / "run/report.md").read_text()


def test_a_backtest_trains_anew_at_every_origin(tmp_path):
    short = ("trainer.max_epochs=2", *BRIEF, "preflight=false", "quantize=none")
    pipeline(tmp_path, "experiment=series", *ONE, *SERIES, *short, "origins=2")
    found = read_json(tmp_path / "run/verdict.json")
    origins = found["backtest"]["origins"]
    beaten = [one["student"] < min(one["baselines"][n] for n in NAIVE) for one in origins]
    assert found["backtest"]["num_beaten"] == sum(beaten)
    assert origins[0]["from"] < origins[1]["from"]
    first, second = (read_json(tmp_path / f"run/origins/0{n}/train.json") for n in (1, 2))
    assert first["student"]["test_at_best_epoch"] != second["student"]["test_at_best_epoch"]
    assert "Backtest: RMSE at 2 forecast origins" in (tmp_path / "run/report.html").read_text()


def test_rows_without_labels_are_taught(tmp_path, rng):
    rows = pd.DataFrame(rng.normal(size=(240, 2)), columns=["x", "y"])
    rows["price"] = 3 * rows.x - rows.y + 0.1 * rng.normal(size=240)
    rows[:120].to_csv(tmp_path / "known.csv", index=False)
    rows[120:].drop(columns="price").to_csv(tmp_path / "more.csv", index=False)
    data = ("data=table", "data.path=known.csv", "data.label=price", "data.unlabelled=more.csv")
    pipeline(tmp_path, "experiment=table_ensemble", *data, *FOREST, *QUICK)
    stored = read_json(tmp_path / "run/soft_labels.json")
    train = table(path=str(tmp_path / "known.csv"), label="price").train
    assert stored["num_samples"] == len(train) + 120
