"""`monitor` of models of numbers and of several labels: what it knows, and what it cannot know."""

import json
import time

import numpy as np
import pytest
from monitored_numbers import DAY, NOISE, fill, make_world
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from distill.files import read_json
from distill.tasks import TaskKind

NUMBERS, LABELS = TaskKind.REGRESSION, TaskKind.MULTI_LABEL


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    return {kind: make_world(folder / kind, kind) for kind in (NUMBERS, LABELS)}


@pytest.fixture
def asked(cli, runs, tmp_path):
    """Fill a log, look at it; return exit code and stderr, what was found, and what was asked."""

    def call(kind, *overrides, run=None, **how):
        url, run = f"sqlite:///{tmp_path}/log.db", run or runs[kind]
        known = fill(url, run, kind, **how)
        given = [f"run={run}", f"log.url={url}", f"out={tmp_path}/out", "alarm_rate=0.01"]
        ran = cli("monitor", *given, *overrides)
        assert ran.code in (0, 3, 4), ran.stderr
        document = json.loads(ran.stdout.splitlines()[-1])
        assert document == read_json(tmp_path / "out/monitor.json")
        return ran, document["found"], known

    return call


def fired(found):
    return {one["name"] for one in found["triggers"] if one["fires"]}


def of_window(known):
    return known.times >= time.time() - 7 * DAY


def test_the_error_of_numbers_is_scikit_learns_and_its_interval_holds_the_truth(asked):
    ran, found, known = asked(NUMBERS)
    assert (ran.code, fired(found)) == (0, set())
    late = of_window(known)
    expected = root_mean_squared_error(known.truths[late], known.answers[late])
    assert found["metric"] == "rmse"
    assert found["audited"]["estimate"] == pytest.approx(expected, rel=0.01)
    low, high = found["audited"]["interval"]
    assert low < NOISE < high
    assert found["reference"] == pytest.approx(NOISE, rel=0.1)
    assert f"RMSE is {expected:.2g}"[:9] in ran.stderr
    assert "on its test set it was" in " ".join(ran.stderr.split())


def test_what_sees_no_labels_is_not_for_numbers_and_says_so(asked, tmp_path):
    _, found, _ = asked(NUMBERS, f"teacher.path={tmp_path}/teacher.onnx")
    assert found["label_free"] == {}
    assert found["bounds"] is None
    assert "not for numbers" in " ".join(found["cannot_know"])
    assert "not for numbers" in (tmp_path / "out/monitor.html").read_text()


def test_errors_that_grow_ask_for_a_training_and_cross_the_baseline(asked):
    ran, found, known = asked(NUMBERS, worse=lambda at: 20 * at, rows=200)
    assert (ran.code, fired(found)) == (3, {"audited RMSE"})
    assert found["audited"]["estimate"] > 1.5 * found["reference"]
    estimates = [one["estimate"] for one in found["windows"]]
    assert estimates == sorted(estimates)
    assert found["baseline"] == ["mean", 30.0]
    assert found["decay"]["crossing_day"] == pytest.approx(14, abs=4)  # 20 to 40 passes 30
    truth = known.truths[known.times < time.time() - 21 * DAY]
    assert found["windows"][0]["count"] == pytest.approx(len(truth), abs=2)


def test_numbers_that_move_are_a_drift_and_no_reason_to_train(asked):
    ran, found, _ = asked(NUMBERS, brighter=60.0)
    assert (ran.code, fired(found)) == (4, {"drift"})
    changed = {one["name"]: one for one in found["changes"] if one["stands_out"]}
    assert {"brightness", "north", "south"} <= set(changed)
    assert changed["north"]["statistic"] == "ks"
    assert changed["north"]["effect"] is None


def test_rows_whose_truth_is_known_in_part_do_not_count(asked):
    _, found, known = asked(NUMBERS, known=0.97)
    assert found["num_labels"] == len(known.times) < 28 * 60
    assert found["audited"]["num_labels"] == pytest.approx(of_window(known).sum(), abs=1)


def test_labels_of_some_rows_alone_are_no_audit(asked):
    ran, found, _ = asked(NUMBERS, known=0.5)
    assert found["audited"] is None
    assert "RMSE cannot be known without labels of a random slice" in " ".join(ran.stderr.split())


def test_mase_wants_what_no_log_holds_and_mae_stands_for_it(asked, runs, tmp_path):
    run = make_world(tmp_path / "run", NUMBERS, metric="mae")
    figures = read_json(run / "reference.json")
    figures["models"]["model.onnx"]["metric"] = "mase"
    (run / "reference.json").write_text(json.dumps(figures))
    _, found, known = asked(NUMBERS, run=run)
    late = of_window(known)
    expected = mean_absolute_error(known.truths[late], known.answers[late])
    assert found["metric"] == "mae"
    assert found["audited"]["estimate"] == pytest.approx(expected, rel=0.01)
    assert found["baseline"] == ["mean", 30.0]


def test_several_labels_are_known_by_the_share_that_is_right(asked):
    ran, found, known = asked(LABELS)
    assert (ran.code, fired(found)) == (0, set())
    late = of_window(known)
    expected = np.mean((known.answers[late] > 0) == known.truths[late])
    assert found["metric"] == "label_accuracy"
    assert found["audited"]["estimate"] == pytest.approx(expected, abs=0.005)
    low, high = found["audited"]["interval"]
    assert low < 0.9 < high
    assert "not for several labels" in " ".join(found["cannot_know"])
    assert {"north", "south"} <= {one["name"] for one in found["changes"]}


def test_labels_that_get_worse_ask_for_a_training(asked):
    ran, found, _ = asked(LABELS, worse=lambda at: 0.4 * at)
    assert (ran.code, fired(found)) == (3, {"audited label accuracy"})
    estimates = [one["estimate"] for one in found["windows"]]
    assert estimates == sorted(estimates, reverse=True)
    assert found["decay"]["start"] == pytest.approx(0.9, abs=0.05)


def test_no_policy_lives_through_numbers(cli, runs, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    fill(url, runs[NUMBERS], NUMBERS, days=9)
    ran = cli("monitor", "simulate", f"run={runs[NUMBERS]}", f"log.url={url}")
    assert ran.code == 1
    assert "the stand-in tells classes alone" in " ".join(ran.stderr.split())


def test_answers_that_do_not_fit_the_contract_are_one_message(cli, tmp_path):
    run = make_world(tmp_path / "run", NUMBERS)
    with np.load(run / "predictions/test_logits.npz") as stored:
        arrays = dict(stored)
    arrays["student"] = arrays["student"][:, :1]
    np.savez(run / "predictions/test_logits.npz", **arrays)
    ran = cli("monitor", f"run={run}", f"log.url=sqlite:///{tmp_path}/l.db")
    assert ran.code == 1
    assert "[1500, 2]" in " ".join(ran.stderr.split())
