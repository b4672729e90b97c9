"""The verb: what it says of worlds that stay, that change, and that change unseen."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from monitored import ACCURACY, fill, make_world

from distill.audit import Audit, Share
from distill.files import read_json
from distill.production.monitoring.observation import _drawn
from distill.production.prediction_log.scope import Scope
from distill.production.teacher_answers import TeacherAnswers


@pytest.fixture
def asked(cli, world, tmp_path):
    """Fill a log, look at it, and return exit code, stderr and what was found."""

    def call(*overrides, run=world, teacher=True, **how):
        url = f"sqlite:///{tmp_path}/log.db"
        answers = fill(url, run, **how)
        given = [f"run={run}", f"log.url={url}", f"out={tmp_path}/out", "alarm_rate=0.01"]
        if teacher:
            answers.write(tmp_path / "teacher.npz")
            given.append(f"teacher.path={tmp_path}/teacher.npz")
        ran = cli("monitor", *given, *overrides)
        if ran.code not in (0, 3, 4):
            return ran, None
        document = json.loads(ran.stdout.splitlines()[-1])
        assert document == read_json(tmp_path / "out/monitor.json")
        assert "<script" not in (tmp_path / "out/monitor.html").read_text()
        return ran, document["found"] | {"asks": document["asks"]}

    return call


def fired(found):
    return {one["name"] for one in found["triggers"] if one["fires"]}


def test_a_world_that_stays_asks_for_nothing(asked):
    ran, found = asked()
    assert (ran.code, found["asks"], fired(found)) == (0, None, set())
    low, high = found["audited"]["interval"]
    assert low < ACCURACY < high
    assert found["audited"]["saving"] > 1.3
    low, high = found["label_free"]["disagreement"]["interval"]
    assert low < ACCURACY < high
    low, high = found["bounds"]  # the teacher's error is known by two hundred labels
    assert low - 0.06 < ACCURACY < high + 0.06
    assert found["baseline"] == ["majority", 0.6]
    assert found["num_rows"] == pytest.approx(7 * 150, abs=150)


def test_inputs_that_drift_without_harm_ask_for_a_look_and_for_no_training(asked):
    ran, found = asked(brighter=60.0)
    assert (ran.code, found["asks"]) == (4, "investigate")
    assert fired(found) == {"drift"}
    first = found["changes"][0]
    assert first["stands_out"]
    assert "brightness" in {one["name"] for one in found["changes"] if one["stands_out"]}


def test_answers_that_get_worse_unseen_are_told_by_labels(asked):
    ran, found = asked(wrong=lambda at: 0.1 + 0.4 * at)
    assert (ran.code, found["asks"]) == (3, "retrain")
    assert "audited accuracy" in fired(found)
    assert "drift" not in fired(found)
    assert found["label_free"]["confidence"]["estimate"] > found["audited"]["estimate"] + 0.1
    assert found["audited"]["estimate"] == pytest.approx(0.55, abs=0.1)
    assert "accuracy is" in ran.stderr
    assert found["decay"]["crossing_day"] == pytest.approx(21, abs=7)  # 0.9 to 0.5 passes 0.6


def test_without_labels_it_says_what_it_cannot_know(asked):
    ran, found = asked(labels=False, audit=None)
    assert ran.code == 0
    assert found["audited"] is None
    assert "concept drift" in " ".join(found["cannot_know"])
    assert found["decay"] is None


def test_chosen_labels_are_no_audit(asked, world, tmp_path):
    _, found = asked(audit=0.2)
    assert found["audited"]["num_labels"] < 0.3 * found["num_rows"]  # the slice, not all
    assert found["audit"].startswith("20.0%")


def test_the_truth_of_all_rows_needs_no_slice(asked):
    _, found = asked(audit=None)
    assert found["audited"]["num_labels"] == pytest.approx(found["num_rows"], rel=0.01)
    assert found["audit"].startswith("the truth of 100%")


def test_of_more_truths_than_are_wanted_a_share_is_drawn_and_that_is_said(
    asked, tmp_path, monkeypatch
):
    # Of all rows the truth is known, however many of them the draw happens to take.
    monkeypatch.setattr("distill.production.monitoring.observation.MIN_COVERED", 1.0)
    ran, found = asked("num_labels=1000", audit=None, teacher=False)
    assert (ran.code, found["asks"]) == (0, None)
    read, known = found["num_labels_read"], found["num_labels"]
    assert read == pytest.approx(1000, abs=150)
    assert known == pytest.approx(28 * 150, rel=0.15)
    assert found["audited"]["num_labels"] == pytest.approx(read / 4, rel=0.3)
    low, high = found["audited"]["interval"]
    assert low < ACCURACY < high
    assert sum(one["count"] for one in found["windows"]) == read
    assert f"of which {read:,} of about {known:,} were drawn at random" in found["audit"]
    text = (tmp_path / "out/monitor.html").read_text()
    assert f"about {known:,} labels, {read:,} looked at" in text


def test_a_slice_that_was_drawn_counts_in_full_however_few_labels_are_wanted(asked):
    _, whole = asked(audit=0.2, teacher=False, days=12)
    assert whole["num_labels"] == whole["num_labels_read"] == 12 * 150


def test_the_shares_of_the_slice_are_those_of_the_model_s_life():
    shares = (Share(since=0.0, share=0.1), Share(since=1000.0, share=0.02))
    alone = _drawn(Audit(shares=shares[:1]), Scope(since=10.0, until=2000.0))
    assert alone == "10.0% of the rows, drawn at random"
    both = _drawn(Audit(shares=shares), Scope(since=10.0, until=2000.0))
    assert both.startswith("10.0%, 2.0% since 1970-01-01 00:16 UTC of the rows")
    late = _drawn(Audit(shares=shares), Scope(since=1500.0, until=2000.0))
    assert late == "2.0% of the rows, drawn at random"


def test_all_of_a_large_log_s_slice_counts(asked, monkeypatch):
    monkeypatch.setattr("distill.production.monitoring.observation.NUM_COUNTED", 300)
    _, found = asked(audit=0.2, teacher=False, days=12)
    assert found["num_labels_read"] < 0.35 * found["num_labels"]
    counted = sum(one["count"] for one in found["windows"])
    assert counted == pytest.approx(0.2 * 12 * 150, rel=0.25)
    assert counted > 300


def test_a_teacher_that_is_gone_is_missed_and_nothing_else(asked, tmp_path):
    ran, found = asked(f"teacher.path={tmp_path}/gone.onnx", teacher=False)
    assert ran.code == 0
    assert "disagreement" not in found["label_free"]
    assert "gone.onnx" in " ".join(found["cannot_know"])
    assert found["audited"]["saving"] == 1


def test_without_inputs_answers_are_still_looked_at(asked):
    ran, found = asked(inputs=False, teacher=False)
    assert ran.code == 0
    names = {one["name"] for one in found["changes"]}
    assert "predicted class" in names
    assert "brightness" not in names
    assert "log.inputs=keep" in " ".join(found["cannot_know"])


def test_a_new_model_is_left_alone_for_a_while_and_the_page_says_that_it_is_worse(asked, tmp_path):
    ran, found = asked(days=5, wrong=lambda at: 0.6)
    assert ran.code in (0, 4)
    held = next(one for one in found["triggers"] if one["name"] == "audited accuracy")
    assert held["fires"]
    assert "the model is new" in held["held"]
    text = (tmp_path / "out/monitor.html").read_text()
    assert "Answers are worse (audited accuracy" in text
    assert "training is held for 2.0 days" in text
    assert "`rules.cooldown_days`" in text
    assert "No rule says" not in text
    assert "Answers are worse (audited accuracy" in " ".join(ran.stderr.split())


def test_gaps_that_training_knew_are_no_skew_and_what_it_never_saw_is(cli, world, tmp_path):
    fill(f"sqlite:///{tmp_path}/l.db", world, days=9)
    given = (f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db", f"out={tmp_path}/out")

    def skew(statement):
        with closing(sqlite3.connect(tmp_path / "l.db")) as log, log:
            log.execute(statement)
        ran = cli("monitor", *given, "alarm_rate=0.0001")
        found = json.loads(ran.stdout.splitlines()[-1])["found"]
        return found["skew"], "skew" in fired(found)

    gaps = "INSERT INTO distill_skew VALUES ('g', strftime('%s') - 60, 'm', 1, 'gap', 'age', 9999)"
    assert skew(gaps) == (0, False)
    page = (tmp_path / "out/monitor.html").read_text()
    assert "gap: age" in page
    assert "9,999" in page
    by_chance = "UPDATE distill_predictions SET odd = '%s' WHERE abs(random()) %% 10 = 0"
    assert skew(by_chance % "champion") == (0, False)
    share, fires = skew(by_chance % "own")
    assert share == pytest.approx(0.1, abs=0.04)
    assert fires


def test_rules_of_the_calendar_and_of_labels(asked):
    ran, found = asked("rules.max_age_days=14", "rules.min_new_labels=100")
    assert ran.code == 3
    assert fired(found) == {"age", "new labels"}


@pytest.mark.parametrize("verb", ["monitor", "experiment"])
def test_no_log_is_one_message(cli, world, verb):
    ran = cli(verb, "log.url=null", *([f"run={world}"] if verb == "monitor" else []))
    assert (ran.code, "Traceback" in ran.stderr) == (2, False)
    assert "Expected `log.url=` to name a database but got None" in ran.stderr


def test_an_empty_log_is_one_message(cli, world, tmp_path):
    fill(f"sqlite:///{tmp_path}/l.db", world, days=0)
    ran = cli("monitor", f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db")
    assert ran.code == 1
    assert "the log but it is empty" in ran.stderr


def test_a_log_of_another_model_is_one_message_that_names_it(cli, world, tmp_path):
    fill(f"sqlite:///{tmp_path}/l.db", world, days=2)
    with closing(sqlite3.connect(tmp_path / "l.db")) as log, log:
        log.execute("UPDATE distill_predictions SET artefact_sha256 = 'f00', model = 'birds'")
    ran = cli("monitor", f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db")
    assert ran.code == 1
    assert "they are of birds version 1" in " ".join(ran.stderr.split())


def test_a_reference_of_another_file_is_one_message(cli, tmp_path):
    run = make_world(tmp_path / "run")
    figures = read_json(run / "reference.json")
    figures["models"]["model.onnx"]["sha256"] = "0" * 64
    (run / "reference.json").write_text(json.dumps(figures))
    ran = cli("monitor", f"run={run}", f"log.url=sqlite:///{tmp_path}/l.db")
    assert ran.code == 1
    assert "of another file" in " ".join(ran.stderr.split())


def test_a_run_that_has_not_ended_is_one_message(cli, tmp_path):
    ran = cli("monitor", f"run={tmp_path}")
    assert ran.code == 1
    assert "verdict.json" in ran.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "window_days=0", "alarm_rate=2", "rules.max_drop=-1", "until=yesterday", "max_rows=0.5",
        "rules.cooldown_days=soon", "plan.labels=1.5",
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(cli, world, wrong):
    ran = cli("monitor", f"run={world}", wrong)
    assert ran.code == 2
    assert wrong.split("=")[0] in ran.stderr


def test_a_damaged_file_of_answers_is_one_message(cli, world, tmp_path):
    fill(f"sqlite:///{tmp_path}/l.db", world, days=2)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(np.zeros(10).tobytes())
    ran = cli(
        "monitor", f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db", f"teacher.path={broken}"
    )
    assert ran.code == 1
    assert "broken.npz" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_rows_of_a_time_to_come_wait_and_are_told(asked, world, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    fill(url, world, days=2)
    with closing(sqlite3.connect(tmp_path / "log.db")) as log, log:
        log.execute(
            "UPDATE distill_predictions SET time = time + 1e6 WHERE rowid % 50 = 0"  # a dozen days
        )
    ran, found = asked(teacher=False, days=9)
    assert ran.code in (0, 4)
    assert "6 rows of a time to come" in " ".join(found["cannot_know"])
    assert found["age_days"] == pytest.approx(9, abs=0.1)


def test_a_clock_that_was_back_in_1970_changes_nothing(asked, world, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    fill(url, world, days=2)
    with closing(sqlite3.connect(tmp_path / "log.db")) as log, log:
        log.execute("UPDATE distill_predictions SET time = rowid WHERE rowid % 100 = 0")
    _, found = asked(teacher=False, days=9)
    assert found["age_days"] == pytest.approx(9, abs=0.1)
    assert len(found["windows"]) == 2


def test_a_log_all_of_a_time_to_come_is_one_message(cli, world, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    fill(url, world, days=2)
    ran = cli("monitor", f"run={world}", f"log.url={url}", "until=1000000000")
    assert ran.code == 1
    assert "they are of nobody until then" in " ".join(ran.stderr.split())


def test_policies_live_through_the_log(cli, world, tmp_path):
    answers = fill(f"sqlite:///{tmp_path}/l.db", world, rows=60)
    answers.write(tmp_path / "teacher.npz")
    given = (f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db", f"out={tmp_path}/out")
    ran = cli("monitor", "simulate", *given, f"teacher.path={tmp_path}/teacher.npz")
    assert ran.code == 0, ran.stderr
    document = json.loads(ran.stdout.splitlines()[-1])
    assert document == read_json(tmp_path / "out/simulate.json")
    assert (document["num_rows"], document["num_days"]) == (28 * 60, 28)
    assert [one["policy"] for one in document["outcomes"]][-1] == "hybrid"
    assert "<svg" in (tmp_path / "out/simulate.html").read_text()


def test_a_simulation_draws_a_share_of_the_rows_and_goes_on_without_its_teacher(
    cli, world, tmp_path
):
    fill(f"sqlite:///{tmp_path}/l.db", world, rows=60)
    given = (f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db", f"out={tmp_path}/out")
    ran = cli("monitor", "simulate", *given, f"teacher.path={tmp_path}/gone.onnx", "max_rows=900")
    assert ran.code == 0, ran.stderr
    document = json.loads(ran.stdout.splitlines()[-1])
    assert document["num_rows"] == pytest.approx(900, abs=120)
    assert document["num_labels"] == pytest.approx(28 * 60, rel=0.15)
    assert "gone.onnx" in " ".join(document["cannot_know"])
    assert "disagreement" not in {one["policy"] for one in document["outcomes"]}


def test_of_large_inputs_fewer_are_read(cli, world, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.production.monitoring.observation.MAX_BYTES", 132 * 500)
    fill(f"sqlite:///{tmp_path}/l.db", world, rows=60)
    ran = cli("monitor", "simulate", f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["num_rows"] == 500


def test_nothing_can_be_lived_through_without_inputs(cli, world, tmp_path):
    fill(f"sqlite:///{tmp_path}/l.db", world, days=9, inputs=False)
    ran = cli("monitor", "simulate", f"run={world}", f"log.url=sqlite:///{tmp_path}/l.db")
    assert ran.code == 1
    assert "log.inputs=keep" in ran.stderr


def test_a_teacher_of_other_classes_says_nothing(asked, tmp_path):
    own = TeacherAnswers(
        ids=np.array(["x"]),
        logits=np.zeros((1, 3), np.float32),
        model_sha256="t",
        classes=("owl", "dog", "cat"),
    )
    own.write(tmp_path / "other.npz")
    ran, _ = asked(f"teacher.path={tmp_path}/other.npz", teacher=False, days=9)
    assert ran.code == 1
    assert "the 3 classes cat, dog, owl but it has 3: owl, dog, cat" in " ".join(ran.stderr.split())
