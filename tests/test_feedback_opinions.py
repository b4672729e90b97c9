"""Kappas of the people of a queue, by hand; an audit judges, and what is contested counts."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from distill.audit import place_of
from distill.production.feedback.opinions import agreement
from distill.production.feedback.verdicts import CONTESTED, audited, label_of, verdict_on
from distill.production.prediction_log.queue import Reviewed
from distill.production.prediction_log.records import Annotation, Prediction, QueueItem


def said(item, who, label):
    return Annotation(prediction=item, annotator=who, label=label)


def row(*labels, split="audit", probability=1.0, predicted=0, **facts):
    item = QueueItem(
        prediction="0" * 30,
        split=split,
        reason="audit",
        classes_sha256="c",
        priority=0.0,
        inclusion_probability=probability if split == "audit" else None,
        label=facts.pop("settled", None),
    )
    own = Prediction(
        id=item.prediction, request="r", model="m", version=None, artefact_sha256="a",
        role="champion", latency_ms=1.0, label=predicted,
    )  # fmt: skip
    people = tuple(said(item.prediction, f"p{i}", label) for i, label in enumerate(labels))
    return Reviewed(item=item, prediction=own, annotations=people, **facts)


def test_two_people_by_hand():
    # a: 0 0 1 1, b: 0 1 1 1; p_o = 3/4, p_e = 2/4 * 1/4 + 2/4 * 3/4 = 1/2
    answers = [said(i, "ann", label) for i, label in enumerate([0, 0, 1, 1])]
    answers += [said(i, "bob", label) for i, label in enumerate([0, 1, 1, 1])]
    found = agreement([*answers, said(9, "ann", 1), said(9, "bob", None)], 2)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.num_both, pair.num_same) == ("ann", "bob", 4, 3)
    assert pair.cohen_kappa == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
    assert (found.num_annotators, found.num_several) == (2, 4)


def test_each_pair_has_scikit_learns_kappa_and_the_largest_is_first(rng):
    labels = rng.integers(0, 3, (3, 60))
    labels[1, :40] = labels[0, :40]
    answers = [said(i, f"p{who}", int(labels[who, i])) for who in range(3) for i in range(60)]
    found = agreement(answers[:150], 3)  # p2 stopped early
    assert [(p.first, p.second, p.num_both) for p in found.pairs] == [
        ("p0", "p1", 60), ("p0", "p2", 30), ("p1", "p2", 30),
    ]  # fmt: skip
    for pair in found.pairs:
        one, two = labels[int(pair.first[1])], labels[int(pair.second[1])]
        expected = cohen_kappa_score(one[: pair.num_both], two[: pair.num_both])
        assert pair.cohen_kappa == pytest.approx(expected)
    assert -1 < found.fleiss_kappa < 1


def test_nobody_and_one_alone_have_no_kappa():
    assert agreement([], 3).fleiss_kappa is None
    alone = agreement([said(1, "ann", 0)], 3)
    assert (alone.num_annotators, alone.pairs, alone.fleiss_kappa) == (1, (), None)


@pytest.mark.parametrize(
    ("own", "verdict", "label"),
    [
        (row(), None, None),
        (row(None, None), None, None),
        (row(1, None), 1, None),  # against a sure teacher it is not settled, and judges
        (row(1, settled=1), 1, (1, "human")),
        (row(0, 1), CONTESTED, None),
        (row(0, 1, 1, settled=1), 1, (1, "human")),
        (row(0, truth=2, truth_source="shop"), 2, (2, "delayed_truth")),
        (row(truth=2, truth_source="human"), 2, (2, "human")),
    ],
)
def test_what_is_known_of_a_row(own, verdict, label):
    assert verdict_on(own) == verdict
    assert label_of(own) == label


def test_what_is_contested_counts_against_the_model_and_the_teacher():
    rows = [row(0, settled=0)] * 3 + [row(0, 1)] + [row()]
    found = audited(rows, "a")
    assert found.accuracy(confidence=0.95).estimate == 3 / 4
    assert (found.num_drawn, found.num_open) == (5, 1)
    proof = found.proof(np.array([[9.0, 0]] * 4), target=0.9)
    assert [(own.num_audited, own.num_right) for own in proof.levels] == [(4, 3)] * 9


def test_a_teacher_without_an_answer_is_not_judged_by_it():
    found = audited([row(0, settled=0), row(0, settled=0)], "a")
    proof = found.proof(np.array([[9.0, 0], [np.nan, np.nan]]), target=0.9)
    assert proof.levels[0].num_audited == 1


def test_what_another_version_answered_judges_the_teacher_alone():
    own = row(1, settled=1, predicted=0)
    others = replace(own, prediction=replace(own.prediction, artefact_sha256="b"))
    found = audited([own, row(0, settled=0), *[others] * 8], "a")
    assert found.num_answered == 2
    assert found.accuracy(confidence=0.95).estimate == 1 / 2
    proof = found.proof(np.array([[0, 9.0]] * 10), target=0.5)
    level = proof.levels[0]
    assert (level.num_audited, level.num_right) == (10, 9)
    assert (level.num_differing, level.num_differing_right) == (2, 1)
    assert audited([others], "a").accuracy(confidence=0.95) is None


def test_chosen_rows_do_not_judge():
    found = audited([row(1, settled=1, split="active")] * 5, "a")
    assert found.accuracy(confidence=0.95) is None
    assert found.num_drawn == 0


def test_rows_of_a_time_with_a_larger_share_do_not_count_more():
    ids = [f"{i:030x}" for i in range(200)]
    rows = []
    for i, one in enumerate(ids):
        own = row(0, settled=0, probability=0.9 if i < 100 else 0.3)
        rows.append(replace(own, item=replace(own.item, prediction=one)))
    found = audited(rows, "a")
    assert found.ids == [one for one in ids if place_of(one) < 0.3]
    assert found.num_drawn == 200
