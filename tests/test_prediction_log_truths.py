"""A truth that turns out after people have settled an item: it counts, and they are still heard."""

import threading

import pytest
from test_prediction_log_queue import CLASSES, said, truth
from test_prediction_log_queue import fill as fill

from distill.production.feedback.verdicts import label_of, upheld
from distill.production.prediction_log.annotations import progress, take_back
from distill.production.prediction_log.feedback import ConflictingFeedbackError, add_feedback
from distill.production.prediction_log.queue import find_item, reviewed
from distill.production.prediction_log.records import Feedback


def turns_out(engine, of, label, source="api"):
    return add_feedback(engine, Feedback(prediction=of, label=label, source=source))


def test_a_truth_takes_the_place_of_what_people_settled_and_both_are_kept(engine, fill):
    (one,) = fill({})
    said(engine, one, "ann", 2)
    assert turns_out(engine, one, 0)
    assert truth(engine, one) == [(0, "api")]
    row = find_item(engine, one)
    assert (row.truth, row.truth_source, row.item.label) == (0, "api", 2)
    assert [(own.annotator, own.label) for own in row.annotations] == [("ann", 2)]
    assert label_of(row) == (0, "delayed_truth")


def test_the_truth_is_said_once_and_another_one_is_refused(engine, fill):
    (one,) = fill({})
    said(engine, one, "ann", 2)
    assert turns_out(engine, one, 0)
    assert not turns_out(engine, one, 0)
    with pytest.raises(ConflictingFeedbackError, match="as api said"):
        turns_out(engine, one, 1)
    assert truth(engine, one) == [(0, "api")]


def test_a_person_is_no_truth_that_turns_out(engine, fill):
    (one,) = fill({})
    said(engine, one, "ann", 2)
    with pytest.raises(ConflictingFeedbackError, match="as human said"):
        turns_out(engine, one, 0, source="human")
    assert truth(engine, one) == [(2, "human")]


def test_what_a_person_said_elsewhere_stays_for_nothing_else_keeps_it(engine, fill):
    (one,) = fill({})
    turns_out(engine, one, 2, source="human")
    with pytest.raises(ConflictingFeedbackError, match="as human said"):
        turns_out(engine, one, 0)
    assert truth(engine, one) == [(2, "human")]


def test_who_takes_back_an_opinion_takes_back_no_truth(engine, fill):
    (one,) = fill({})
    said(engine, one, "ann", 2)
    turns_out(engine, one, 0)
    take_back(engine, one, "ann")
    assert truth(engine, one) == [(0, "api")]
    said(engine, one, "ann", 1)
    assert truth(engine, one) == [(0, "api")]
    assert find_item(engine, one).item.label == 1


def test_contradictions_and_who_was_right_are_counted(engine, fill):
    wrong, right, early, unknown = fill({}, {}, {}, {})
    for one, label in ((wrong, 2), (right, 1), (unknown, 2)):
        said(engine, one, "ann", label)
    turns_out(engine, wrong, 0)
    assert turns_out(engine, right, 1)  # news: until now it was an opinion
    turns_out(engine, early, 0)
    said(engine, early, "bob", 2)  # who was handed it before
    found = progress(engine, CLASSES, "ann")
    assert (found.contradicted, found.judged, found.upheld) == (2, 3, 1)
    people = upheld(list(reviewed(engine, CLASSES)))
    counted = people.num_contradicted, people.num_judged, people.num_upheld
    assert counted == (2, 3, 1)


def test_a_truth_and_a_person_who_come_at_once_leave_one_truth(engine, fill):
    ids = fill(*[{}] * 12)

    def people():
        for one in ids:
            said(engine, one, "ann", 2)
            take_back(engine, one, "ann")
            said(engine, one, "ann", 1)

    def world():
        for one in ids:
            turns_out(engine, one, 0)

    threads = [threading.Thread(target=work) for work in (people, world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one: truth(engine, one) for one in ids} == {one: [(0, "api")] for one in ids}
    assert {find_item(engine, one).item.label for one in ids} == {1}
