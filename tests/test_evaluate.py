"""Claims about what decides: pairs of answers on the test set, and the checks that read them."""

import numpy as np
import pytest

from distill.budget import Outcome, parse_budget
from distill.deployment.checks import quality_checks
from distill.deployment.evaluate import References, evaluate
from distill.files import to_json
from distill.metrics import compare_paired
from distill.scoring import Classes, Truth
from distill.tasks import classification

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def answers(labels, num_wrong):
    """Answer all but the first few right."""
    said = labels.copy()
    said[:num_wrong] = (said[:num_wrong] + 1) % 10
    return said


def evaluated(labels, logits, **references):
    return evaluate(
        logits,
        Truth(labels=labels),
        Classes(10),
        references=References(**references),
        measured_through=dict.fromkeys(logits, "here"),
        task=classification("0123456789"),
        confidence=0.95,
    )


def margins(labels, predictions, **references):
    logits = {"student": np.eye(10)[predictions], "control": np.eye(10)[labels]}
    return evaluated(labels, logits, **references)["margins"]["student"]


@pytest.fixture
def labels(rng):
    return rng.integers(0, 10, 1000)


def gate(labels, student_wrong, reference_wrong, *, limit=-0.01, incumbent=None):
    """Hold a student against a baseline, and maybe an incumbent, as the verdict does."""
    baselines = {"rule": answers(labels, reference_wrong)}
    if incumbent is not None:
        baselines["incumbent"] = answers(labels, incumbent)
    best = min(baselines, key=lambda name: (baselines[name] != labels).sum())
    # The student is wrong elsewhere: pairs then differ as often as they can.
    student = answers(labels[::-1], student_wrong)[::-1]
    found = margins(labels, student, best=best, baselines=baselines)
    checks = quality_checks(
        parse_budget({"accuracy": {"min_gain_vs_baseline": limit}}),
        artefact="m.onnx",
        target="t",
        metric="accuracy",
        score={"accuracy": {"estimate": 0.9, "interval": [0.8, 1.0]}},
        margins=to_json(found),
        parity={"logit_std": 0.0, "top1_agreement": 1.0},
        binds_logits=True,
    )
    return {check.name: check.outcome for check in checks}


def test_worse_than_the_baseline_blocks(labels):
    assert gate(labels, 100, 20) == {"gain_vs_baseline": FAIL}


def test_equal_within_the_margin_passes(labels):
    same = answers(labels, 50)
    found = margins(labels, same, best="rule", baselines={"rule": same})
    assert found.gain_vs_baseline.interval[0] > -0.01
    assert gate(labels, 5, 5, limit=-0.02) == {"gain_vs_baseline": PASS}


def test_an_interval_that_is_too_wide_is_inconclusive(labels):
    few = labels[:40]
    assert gate(few, 2, 2) == {"gain_vs_baseline": INCONCLUSIVE}


def test_an_incumbent_is_a_limit_of_its_own(labels):
    # The rule is best and is beaten by none; the incumbent behind it is.
    assert gate(labels, 60, 10, incumbent=150) == {
        "gain_vs_baseline": FAIL, "gain_vs_incumbent": PASS,
    }  # fmt: skip
    # The incumbent is best: both lines say the same.
    assert gate(labels, 100, 150, incumbent=10) == {
        "gain_vs_baseline": FAIL, "gain_vs_incumbent": FAIL,
    }  # fmt: skip
    assert gate(labels, 20, 150, incumbent=20)["gain_vs_incumbent"] is INCONCLUSIVE


def test_without_a_limit_nothing_is_checked(labels):
    assert gate(labels, 100, 20, limit=None, incumbent=20) == {}


def test_people_are_paired_on_the_samples_that_they_answered(labels):
    student, vote = answers(labels, 30), answers(labels, 10)
    vote[500:] = -1
    found = margins(labels, student, best="a", baselines={"a": labels}, humans=vote)
    expected = compare_paired((student == labels)[:500], (vote == labels)[:500])
    assert found.gain_vs_humans == expected
    assert found.gain_vs_humans.num_samples == 500
    assert found.gain_vs_incumbent is None


def test_every_artefact_stands_against_every_baseline(labels):
    logits = {
        name: np.eye(10)[answers(labels, wrong)]
        for name, wrong in (("teacher", 5), ("control", 40), ("student", 20), ("student_int8", 25))
    }
    baselines = {"rule": answers(labels, 60), "incumbent": answers(labels, 30)}
    found = evaluated(labels, logits, best="incumbent", baselines=baselines)
    assert set(found["margins"]) == {"student", "student_int8"}
    for name, wrong in (("student", 20), ("student_int8", 25)):
        own = found["margins"][name]
        gains = {key: value.estimate for key, value in own.gain_vs_baselines.items()}
        assert gains == pytest.approx(
            {"rule": (60 - wrong) / 1000, "incumbent": (30 - wrong) / 1000}
        )
        assert own.gain_vs_baseline == own.gain_vs_incumbent == own.gain_vs_baselines["incumbent"]
