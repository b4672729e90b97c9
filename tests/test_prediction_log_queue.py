"""The queue hands each item to as many as are wanted, and what they say is kept once and whole."""

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from prediction_logs import prediction, queued, write

from distill.errors import UserError
from distill.production.prediction_log.annotations import (
    ConflictingAnnotationError,
    UnknownItemError,
    answer,
    answers,
    progress,
    settled_label,
    take_back,
)
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.queue import (
    HOLD_S,
    add_items,
    audit_shares,
    find_item,
    hand_out,
    reviewed,
    set_audit_share,
)
from distill.production.prediction_log.reader import find
from distill.production.prediction_log.records import Annotation, Feedback, QueueItem, new_id
from distill.production.prediction_log.retention import purge
from distill.production.prediction_log.schema import ANNOTATIONS, META, QUEUE

CLASSES = "c" * 64
NOW = 1_790_000_000.0


def item(of, **facts):
    usual = {"split": "active", "reason": "margin", "classes_sha256": CLASSES, "priority": 0.5}
    return QueueItem(prediction=of, **usual | facts)


@pytest.fixture
def fill(engine):
    """Put items in; gives the ids of their predictions."""

    def make(*facts, **predicted):
        records = [prediction(**{"input": b"x", "label": 1} | predicted) for _ in facts]
        write(engine, *records)
        ids = [record.id for record in records]
        items = [item(one, **own) for one, own in zip(ids, facts, strict=True)]
        assert add_items(engine, items) == len(items)
        return ids

    return make


def said(engine, of, who, label, **facts):
    return answer(engine, Annotation(prediction=of, annotator=who, label=label, **facts))


def truth(engine, of):
    return [(own.label, own.source) for own in find(engine, of).feedback]


def handed(engine, who, **facts):
    found = hand_out(engine, who, CLASSES, **facts)
    return found and found.item.prediction


def test_an_item_is_put_in_once_and_only_of_a_prediction_that_is_there(engine, fill):
    (one,) = fill({})
    assert add_items(engine, [item(one, reason="entropy"), item(new_id())]) == 0
    assert queued(engine) == {one}
    assert find_item(engine, one).item.reason == "margin"


def test_items_come_back_as_they_went_in_page_by_page(engine, fill):
    facts = [
        {
            "score": 0.5,
            "tier": "unsure",
            "teacher_label": 2,
            "teacher_confidence": 0.4,
            "time": 2.0,
        },
        {"split": "audit", "reason": "audit", "inclusion_probability": 0.05, "num_wanted": 2},
        {},
    ]
    ids = fill(*facts)
    fill({"classes_sha256": "d" * 64})
    found = list(reviewed(engine, CLASSES, page=1))
    assert [own.item.prediction for own in found] == ids
    assert found[0].item == item(ids[0], **facts[0])
    assert found[1].item.inclusion_probability == 0.05
    assert found[2].prediction.input == b"x"


def test_the_most_urgent_comes_first_and_nothing_twice(engine, fill):
    ids = fill({"priority": 0.1}, {"priority": 0.9}, {"priority": 0.5})
    seen = []
    while (one := handed(engine, "ann")) is not None:
        seen.append(one)
        said(engine, one, "ann", 0)
    assert seen == [ids[1], ids[2], ids[0]]


def test_what_is_skipped_does_not_come_again_but_to_others(engine, fill):
    (one,) = fill({})
    said(engine, one, "ann", None)
    assert handed(engine, "ann") is None
    assert handed(engine, "bob") == one
    assert answers(engine, CLASSES) == []


def test_two_people_are_handed_two_items_and_the_same_where_two_are_wanted(engine, fill):
    first, second = fill({"priority": 0.9}, {"priority": 0.1})
    assert (handed(engine, "ann"), handed(engine, "bob"), handed(engine, "cy")) == (
        first, second, None,
    )  # fmt: skip
    both = fill({"priority": 2.0, "num_wanted": 2})[0]
    assert [handed(engine, who) for who in ("ann", "bob")] == [both, both]
    assert handed(engine, "cy") != both


def test_a_hold_ends_and_no_clock_makes_it_last(engine, fill):
    (one,) = fill({})
    assert handed(engine, "ann", now=NOW) == one
    assert handed(engine, "bob", now=NOW + HOLD_S - 1) is None
    assert handed(engine, "bob", now=NOW + HOLD_S) == one
    assert handed(engine, "cy", now=NOW - 7 * 86_400) == one  # bob's would last a week


def test_what_has_a_truth_or_no_input_or_other_classes_is_not_handed_out(engine, fill):
    known, *_ = fill({})
    add_feedback(engine, Feedback(prediction=known, label=2, source="api"))
    fill({}, input=None)
    fill({"classes_sha256": "d" * 64})
    assert handed(engine, "ann") is None
    found = progress(engine, CLASSES, "ann")
    assert (found.total, found.settled, found.open_for, found.hidden) == (2, 1, 0, 1)


def test_an_answer_that_settles_becomes_feedback_of_a_human(engine, fill):
    (one,) = fill({})
    assert said(engine, one, " Ann  B ", 2, lead_time_s=1.5, time=3.0).item.label == 2
    assert truth(engine, one) == [(2, "human")]
    (kept,) = find_item(engine, one).annotations
    assert (kept.annotator, kept.label, kept.lead_time_s, kept.time) == ("Ann B", 2, 1.5, 3.0)
    assert find_item(engine, one).truth is None  # it is what people said, not another source


def test_a_delayed_truth_keeps_its_source_whatever_people_say(engine, fill):
    (one,) = fill({})
    add_feedback(engine, Feedback(prediction=one, label=0, source="api"))
    said(engine, one, "ann", 2)
    assert truth(engine, one) == [(0, "api")]
    found = find_item(engine, one)
    assert (found.truth, found.truth_source) == (0, "api")
    take_back(engine, one, "ann")
    assert truth(engine, one) == [(0, "api")]


def test_the_same_said_again_changes_nothing_and_otherwise_is_refused(engine, fill):
    (one,) = fill({})
    assert said(engine, one, "ann", 2, time=1.0).is_new
    assert not said(engine, one, "ann", 2, time=9.0).is_new
    with pytest.raises(ConflictingAnnotationError, match="Take that back"):
        said(engine, one, "ann", 1)
    assert truth(engine, one) == [(2, "human")]
    replaced = Annotation(prediction=one, annotator="ann", label=1)
    assert answer(engine, replaced, replace=True).item.label == 1
    assert truth(engine, one) == [(1, "human")]


def test_what_is_taken_back_is_open_again_for_whoever_took_it(engine, fill):
    (one,) = fill({})
    said(engine, one, "ann", 2)
    assert take_back(engine, one, "ann")
    assert truth(engine, one) == []
    assert handed(engine, "bob") is None  # ann holds it
    assert handed(engine, "ann") == one
    assert not take_back(engine, one, "bob")


def test_two_who_contradict_each_other_ask_a_third_first(engine, fill):
    two, other = fill({"num_wanted": 2, "priority": 0.1}, {"priority": 0.9})
    said(engine, two, "ann", 1)
    assert said(engine, two, "bob", 2).item.num_extra == 1
    assert truth(engine, two) == []
    assert progress(engine, CLASSES, "cy").adjudicate == 1
    assert handed(engine, "cy") == two
    assert said(engine, two, "cy", 2).item.label == 2
    take_back(engine, two, "ann")  # bob and cy agree without her
    assert truth(engine, two) == [(2, "human")]
    assert find_item(engine, two).item.num_extra == 0
    assert handed(engine, "dee") == other


def test_one_against_a_sure_teacher_is_not_enough_but_two_are(engine, fill):
    facts = {"tier": "agree", "teacher_label": 0}
    against, alike, unsure = fill(facts, facts, {"tier": "unsure", "teacher_label": 0})
    assert said(engine, against, "ann", 1).item.label is None
    assert said(engine, against, "bob", 1).item.label == 1
    assert said(engine, alike, "ann", 0).item.label == 0
    assert said(engine, unsure, "ann", 1).item.label == 1


@given(
    st.lists(st.integers(0, 3), max_size=9),
    st.integers(1, 3),
    st.sampled_from([None, "agree", "unsure"]),
    st.none() | st.integers(0, 3),
)
def test_people_settle_by_more_than_half_and_else_ask_one_more(labels, wanted, tier, teacher):
    label, extra = settled_label(
        labels, item("p", num_wanted=wanted, tier=tier, teacher_label=teacher)
    )
    if label is not None:
        assert labels.count(label) > len(labels) / 2
        assert len(labels) >= wanted
        assert tier != "agree" or teacher in (None, label) or labels.count(label) >= 2
    else:
        assert wanted + extra > len(labels)
    agreed = len(set(labels)) == 1 and len(labels) >= max(2, wanted)
    assert not agreed or label == labels[0]


def test_an_item_that_is_gone_is_one_message(engine, fill):
    (one,) = fill({}, time=1.0)
    said(engine, one, "ann", 1)
    hand_out(engine, "bob", CLASSES)
    purge(engine, 1)
    with pytest.raises(UnknownItemError, match="Go on with the next one"):
        said(engine, one, "ann", 1)
    with engine.connect() as connection:
        for table in (QUEUE, ANNOTATIONS):
            assert connection.execute(sa.select(table)).all() == []


@pytest.mark.parametrize("name", ["", "  \n", "x" * 65])
def test_nobody_and_novels_are_no_annotators(engine, fill, name):
    (one,) = fill({})
    with pytest.raises(UserError, match="annotator's name"):
        said(engine, one, name, 1)


def test_of_many_at_once_none_is_lost_none_is_doubled_and_each_item_settles(engine, fill):
    ids = fill(*[{"num_wanted": 2}] * 12)
    given: list[tuple[str, str]] = []
    own_engines = [open_log(engine.url.render_as_string(hide_password=False)) for _ in range(4)]

    def work(who, own):
        while (found := hand_out(own, who, CLASSES)) is not None:
            one = found.item.prediction
            said(own, one, who, 1)
            said(own, one, who, 1)  # sent twice, as a browser does that heard no answer
            given.append((one, who))

    threads = [
        threading.Thread(target=work, args=(f"p{i}", own)) for i, own in enumerate(own_engines)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for own in own_engines:
        own.dispose()
    kept = [(own.prediction, own.annotator) for own in answers(engine, CLASSES)]
    assert sorted(kept) == sorted(given)
    assert sorted(one for one, _ in kept) == sorted(ids * 2)
    assert {tuple(truth(engine, one)) for one in ids} == {((1, "human"),)}


def test_two_who_answer_one_item_in_the_same_moment_settle_it(engine, fill):
    url = engine.url.render_as_string(hide_password=False)
    for one in fill(*[{"num_wanted": 2}] * 10):
        barrier, own = threading.Barrier(2), [open_log(url) for _ in range(2)]

        def work(who, engine, barrier=barrier, one=one):
            barrier.wait()
            said(engine, one, who, 1)

        threads = [threading.Thread(target=work, args=pair) for pair in zip("ab", own, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for each in own:
            each.dispose()
        assert truth(engine, one) == [(1, "human")]


def test_a_share_of_the_audit_holds_from_then_on_whatever_clocks_say(engine):
    assert set_audit_share(engine, 0.1) == [(0.0, 0.1)]
    assert set_audit_share(engine, 0.1) == [(0.0, 0.1)]
    ahead = 9e9  # a clock that ran ahead wrote a row of the future
    write(engine, prediction(time=ahead))
    (_, (since, share)) = set_audit_share(engine, 0.2)
    assert share == 0.2
    assert since > ahead
    assert audit_shares(engine)[0] == (0.0, 0.1)
    assert len(set_audit_share(engine, 0.1)) == 3


def test_a_log_of_version_1_gets_the_tables_and_loses_nothing(opened):
    engine = opened()
    records = [prediction(input=b"x"), prediction()]
    write(engine, *records)
    add_feedback(engine, Feedback(prediction=records[0].id, label=1))
    before = [find(engine, record.id) for record in records]
    with engine.begin() as connection:
        for name in ("queue", "annotations", "holds", "audits"):
            connection.exec_driver_sql(f"DROP TABLE distill_{name}")
        connection.exec_driver_sql("ALTER TABLE distill_predictions DROP COLUMN odd")
        version = sa.update(META).where(META.c.name == "schema_version")
        connection.execute(version.values(value="1"))
        salt = connection.execute(sa.select(META.c.value).where(META.c.name == "salt")).scalar()
    again = opened()
    assert [find(again, record.id) for record in records] == before
    assert add_items(again, [item(records[0].id)]) == 1
    with again.connect() as connection:
        meta = dict(connection.execute(sa.select(META.c.name, META.c.value)).all())
        indices = {index["name"] for index in sa.inspect(connection).get_indexes("distill_queue")}
    assert meta == {"schema_version": "2", "salt": salt}
    assert "distill_queue_by_priority" in indices
    assert queued(opened()) == {records[0].id}


def test_two_processes_upgrade_one_log_at_once(opened):
    engine = opened()
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE distill_queue")
        connection.exec_driver_sql("ALTER TABLE distill_predictions DROP COLUMN odd")
        version = sa.update(META).where(META.c.name == "schema_version")
        connection.execute(version.values(value="1"))
    url = engine.url.render_as_string(hide_password=False)
    found, barrier = [], threading.Barrier(4)

    def work():
        barrier.wait()
        own = open_log(url)
        found.append(queued(own))
        own.dispose()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [set()] * 4


def test_labels_are_read_by_item_and_person(engine, fill):
    first, second = sorted(fill({"num_wanted": 2}, {}))
    for one, who, label in [(second, "ann", 0), (first, "bob", 2), (first, "ann", 1)]:
        said(engine, one, who, label, time=1.0)
    found = [replace(own, time=0.0) for own in answers(engine, CLASSES)]
    assert found == [
        Annotation(prediction=one, annotator=who, label=label, time=0.0)
        for one, who, label in [(first, "ann", 1), (first, "bob", 2), (second, "ann", 0)]
    ]
    assert {own.prediction for own in answers(engine, CLASSES, last=1)} == {second}
