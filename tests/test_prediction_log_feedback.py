"""The truth is said once, of predictions that are there, or will be in a moment."""

import threading
import time

import pytest
from prediction_logs import prediction, write

from distill.errors import UserError
from distill.production.prediction_log.feedback import (
    ConflictingFeedbackError,
    UnknownPredictionError,
    add_feedback,
)
from distill.production.prediction_log.reader import find
from distill.production.prediction_log.records import Feedback, new_id
from distill.production.prediction_log.retention import purge
from distill.production.prediction_log.writer import LogWriter


@pytest.fixture
def known(engine):
    record = prediction()
    write(engine, record)
    return record.id


def never(seconds):
    raise AssertionError("it waited")


def test_feedback_joins_its_prediction(engine, known):
    label = Feedback(prediction=known, label=3, source="human", time=1.5)
    click = Feedback(prediction=known, name="click", value=1.0, time=2.5)
    assert add_feedback(engine, label)
    assert add_feedback(engine, click)
    assert find(engine, known).feedback == (click, label)


def test_the_same_said_again_changes_nothing(engine, known):
    first = Feedback(prediction=known, name="revenue", value=0.1 + 0.2, source="shop", time=1.0)
    assert add_feedback(engine, first)
    again = Feedback(prediction=known, name="revenue", value=0.1 + 0.2, source="other", time=9.0)
    assert not add_feedback(engine, again)
    assert find(engine, known).feedback == (first,)


@pytest.mark.parametrize(
    ("first", "then"),
    [({"label": 3}, {"label": 4}), ({"name": "n", "value": 1.0}, {"name": "n", "value": 1.5})],
)
def test_another_value_is_refused_and_the_first_one_stays(engine, known, first, then):
    add_feedback(engine, Feedback(prediction=known, source="human", **first))
    with pytest.raises(ConflictingFeedbackError, match=r"stay (3|1\.0), as human said, but got"):
        add_feedback(engine, Feedback(prediction=known, **then))
    (kept,) = find(engine, known).feedback
    assert (kept.label, kept.value) == (first.get("label"), first.get("value"))


@pytest.mark.parametrize(
    "unknown",
    ["", "nonsense", "x" * 5_000, "0" * 30, "\0" * 30, new_id(1e9)],
    ids=["empty", "a word", "long", "zeros", "NUL", "old"],
)
def test_an_old_or_impossible_id_is_refused_at_once(engine, unknown):
    with pytest.raises(UnknownPredictionError, match="there is no") as error:
        add_feedback(engine, Feedback(prediction=unknown, label=1), sleep=never)
    assert len(str(error.value)) < 400


def test_an_id_of_the_future_is_refused_at_once(engine):
    forged = new_id(time.time() + 1e6)
    with pytest.raises(UnknownPredictionError):
        add_feedback(engine, Feedback(prediction=forged, label=1), sleep=never)


def test_a_young_id_that_never_comes_is_refused_after_the_grace(engine):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        time.sleep(seconds)

    with pytest.raises(UnknownPredictionError, match="say it again later"):
        add_feedback(engine, Feedback(prediction=new_id(), label=1), grace_ms=100, sleep=sleep)
    assert 1 <= len(waits) <= 6


def test_feedback_that_overtakes_its_prediction_waits_for_it(engine):
    record = prediction()
    with LogWriter(engine) as writer:

        def sleep(seconds):
            writer.put(record)  # it comes while one waits
            time.sleep(seconds)

        said = Feedback(prediction=record.id, label=1)
        assert add_feedback(engine, said, grace_ms=60_000, sleep=sleep)
    assert find(engine, record.id).feedback == (said,)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "Expected a label, and nothing else"),
        ({"value": 1.0}, "Expected a label, and nothing else"),
        ({"label": 1, "value": 1.0}, "Expected a label, and nothing else"),
        ({"name": "click"}, "Expected a value, and nothing else"),
        ({"name": "click", "label": 1}, "Expected a value, and nothing else"),
        ({"name": "click", "value": float("nan")}, "Expected a finite `click`"),
        ({"name": "click", "value": float("-inf")}, "Expected a finite `click`"),
        ({"label": 2**63}, "64 bits"),
        ({"label": "cat"}, "that a log can hold"),
        ({"name": "", "value": 1.0}, "name of an outcome"),
        ({"name": "x" * 65, "value": 1.0}, "name of an outcome"),
        ({"name": "a\0", "value": 1.0}, "name of an outcome"),
        ({"name": "a b", "value": 1.0}, "name of an outcome"),
    ],
)
def test_what_is_no_feedback_is_refused(engine, known, facts, message):
    with pytest.raises(UserError, match=message):
        add_feedback(engine, Feedback(prediction=known, **facts))
    assert find(engine, known).feedback == ()


def test_of_many_who_say_different_things_at_once_one_is_kept(engine, known):
    said, refused = [], []

    def say(label):
        try:
            if add_feedback(engine, Feedback(prediction=known, label=label)):
                said.append(label)
        except ConflictingFeedbackError:
            refused.append(label)

    threads = [threading.Thread(target=say, args=(label,)) for label in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    assert len(refused) == 7
    assert find(engine, known).feedback[0].label == said[0]


def test_a_prediction_that_is_deleted_meanwhile_is_unknown(engine, known, monkeypatch):
    # As if it went between the look and the insertion.
    real = engine.connect
    looks = []

    def connect():
        looks.append(1)
        if len(looks) == 2:
            purge(engine, 0, now=time.time() + 1, pause_s=0)
        return real()

    monkeypatch.setattr(type(engine), "connect", lambda self: connect())
    with pytest.raises(UnknownPredictionError):
        add_feedback(engine, Feedback(prediction=known, label=1))
