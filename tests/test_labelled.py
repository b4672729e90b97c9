"""Labelled answers are read in shares that have nothing chosen about them, or those of an audit."""

import numpy as np
import pytest
from prediction_logs import prediction, write

from distill.audit import place_of
from distill.production.prediction_log.connection import writing
from distill.production.prediction_log.labelled import Shape, count_labels, labelled
from distill.production.prediction_log.observed import served
from distill.production.prediction_log.records import Feedback, new_id
from distill.production.prediction_log.rows import row_of
from distill.production.prediction_log.schema import FEEDBACK, insert_new
from distill.production.prediction_log.scope import Scope

OWN, NOW, DAY = "a" * 64, 1_790_000_000.0, 86_400.0
SCOPE = Scope(since=NOW - DAY, until=NOW)


def say(engine, *feedback):
    with writing(engine) as connection:
        insert = insert_new(FEEDBACK, engine.dialect)
        connection.exec_driver_sql(insert, [row_of(one) for one in feedback])


@pytest.fixture
def known(engine, rng):
    """400 answers of an hour and their truth; gives id to time, answer and truth."""
    rows = {}
    for i in range(400):
        moment = NOW - 3600 + 9 * i
        rows[new_id(moment)] = moment, int(rng.integers(3)), int(rng.integers(3))
    write(engine, *(prediction(id=o, time=t, label=a) for o, (t, a, _) in rows.items()))
    say(engine, *(Feedback(prediction=o, label=u, time=t) for o, (t, _, u) in rows.items()))
    return rows


def as_rows(found):
    columns = found.times.tolist(), found.answers.tolist(), found.truths.tolist()
    return dict(zip(found.names, zip(*columns, strict=True), strict=True))


def test_all_are_read_whatever_the_page(engine, known):
    assert as_rows(labelled(engine, SCOPE, OWN, page=7)) == known
    found = labelled(engine, SCOPE, OWN)
    assert as_rows(found) == known
    assert found.names == sorted(known)
    assert count_labels(engine, SCOPE, Shape()) == 400


def test_a_share_is_drawn_by_the_ids_alone_and_smaller_ones_are_in_larger_ones(engine, known):
    drawn = [set(labelled(engine, SCOPE, OWN, share=own).names) for own in (0.1, 0.3, 0.9)]
    assert drawn[0] < drawn[1] < drawn[2] < set(known)
    for one, share in zip(drawn, (0.1, 0.3, 0.9), strict=True):
        expected = {o for o in known if int(o[14:22], 16) / 16**8 < share}
        assert one == expected


def test_each_row_is_drawn_with_the_same_chance_whatever_it_says(engine):
    rng = np.random.default_rng(1)
    records = [prediction(id=new_id(NOW - i), time=NOW - i, label=0) for i in range(6000)]
    wrong = rng.random(6000) < 0.3
    write(engine, *records)
    pairs = zip(records, wrong.astype(int).tolist(), strict=True)
    say(engine, *(Feedback(prediction=one.id, label=own, time=NOW - 1) for one, own in pairs))
    found = labelled(engine, Scope(until=NOW + 1), OWN, share=0.2)
    assert len(found) == pytest.approx(1200, abs=5 * np.sqrt(6000 * 0.2 * 0.8))
    error = np.sqrt(0.3 * 0.7 / len(found))
    assert (found.truths == 1).mean() == pytest.approx(wrong.mean(), abs=4 * error)


def test_an_audit_is_read_whole(engine, known):
    found = labelled(engine, SCOPE, OWN, drawn=lambda one: place_of(one) < 0.25, page=33)
    assert set(found.names) == {one for one in known if place_of(one) < 0.25}


def test_of_others_of_shadows_of_failures_and_of_later_nothing_is_read(engine, known):
    others = [
        prediction(id=new_id(NOW - 9), time=NOW - 9, label=1, **facts)
        for facts in ({"artefact_sha256": "b" * 64}, {"role": "shadow"})
    ]
    failed = prediction(id=new_id(NOW - 9), time=NOW - 9, label=None, outcome="error")
    late = prediction(id=new_id(NOW + 9), time=NOW + 9, label=1)
    untold = prediction(id=new_id(NOW - 9), time=NOW - 9, label=1)
    older = prediction(id=new_id(NOW - 2 * DAY), time=NOW - 2 * DAY, label=1)
    rows = [*others, failed, late, untold, older]
    write(engine, *rows)
    said = {one.id: NOW - 1 for one in rows} | {untold.id: NOW + 5}
    say(engine, *(Feedback(prediction=o, label=1, time=t) for o, t in said.items()))
    assert as_rows(labelled(engine, SCOPE, OWN)) == known


def test_numbers_are_read_where_all_of_their_truth_is_known(engine, rng):
    answers = rng.normal(size=(40, 3)).astype("<f4")
    truths = rng.normal(size=(40, 3))
    records = [
        prediction(id=new_id(NOW - 99 + i), time=NOW - 99 + i, output=answers[i].tobytes())
        for i in range(40)
    ]
    odd = prediction(id=new_id(NOW - 9), time=NOW - 9, output=b"1234")
    write(engine, *records, odd)
    told = [
        Feedback(prediction=one.id, name=f"truth.{j}", value=truths[i, j], time=NOW - 1)
        for i, one in enumerate(records)
        for j in range(3 if i % 2 else 2)
    ]
    told += [Feedback(prediction=records[0].id, name="click", value=1.0, time=NOW - 1)]
    told += [
        Feedback(prediction=odd.id, name=f"truth.{j}", value=0.0, time=NOW - 1) for j in range(3)
    ]
    say(engine, *told)
    found = labelled(engine, SCOPE, OWN, Shape(num_answers=3, num_outputs=3))
    assert found.names == [one.id for one in records[1::2]]
    np.testing.assert_array_equal(found.answers, answers[1::2])
    np.testing.assert_allclose(found.truths, truths[1::2], rtol=1e-6)


def test_nothing_has_the_shape_of_something(engine):
    found = labelled(engine, SCOPE, OWN, Shape(num_answers=6, num_outputs=2))
    assert (len(found), found.answers.shape, found.truths.shape) == (0, (0, 6), (0, 2))


def test_a_log_that_grows_while_it_is_read_ends_and_gives_what_was_there(engine, known):
    def grow(_):
        one = new_id(NOW + 1)
        write(engine, prediction(id=one, time=NOW + 1, label=1))
        say(engine, Feedback(prediction=one, label=1, time=NOW + 1))
        return True

    few = sorted(known)[:30]
    assert set(few) <= set(labelled(engine, SCOPE, OWN, drawn=grow, page=50).names) <= set(known)


def test_a_clock_that_was_wrong_for_a_moment_makes_no_model_old(engine):
    moments = [0.0, 1.0, *(NOW - DAY * i for i in range(20)), NOW - 40 * DAY]
    write(engine, *(prediction(id=new_id(own), time=own) for own in moments))
    (own,) = served(engine, Scope(until=NOW + 1))
    assert (own.since, own.until) == (NOW - 40 * DAY, NOW)


def test_a_model_of_few_rows_is_found_among_many(engine):
    many = [prediction(id=new_id(NOW - i), time=NOW - i) for i in range(300)]
    few = prediction(id=new_id(NOW - 7), time=NOW - 7, artefact_sha256="b" * 64)
    write(engine, *many, few)
    (own,) = served(engine, SCOPE, artefact_sha256="b" * 64, wanted=1)
    assert (own.since, own.until) == (NOW - 7, NOW - 7)
