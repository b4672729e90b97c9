"""Claims about what decides: pairs of answers on the test set, and the checks that read them."""

import numpy as np
import pytest
from sklearn.metrics import hamming_loss, mean_absolute_error, r2_score, root_mean_squared_error

from distill.budget import Outcome, parse_budget
from distill.deployment.checks import quality_checks
from distill.deployment.evaluate import References, evaluate, on_old_test
from distill.files import to_json
from distill.statistics.metrics import compare_paired
from distill.statistics.scoring import Classes, Truth, scoring_of
from distill.tasks import Task, TaskKind, classification

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


def guardrail(labels, new_wrong, old_wrong, *, limit=0.05):
    """Hold a retrained student against the model in production on the former test set."""
    asked = None if old_wrong is None else np.eye(10)[answers(labels, old_wrong)]
    student = np.eye(10)[answers(labels[::-1], new_wrong)[::-1]]
    found = on_old_test(
        {"student": student}, asked, Truth(labels=labels), Classes(10), confidence=0.95
    )
    assert found.scores["student"].estimate == 1 - new_wrong / len(labels)
    checks = quality_checks(
        parse_budget({"accuracy": {"max_drop_on_old_test": limit}}),
        artefact="m.onnx",
        target="t",
        metric="accuracy",
        score={"accuracy": {"estimate": 0.9, "interval": [0.8, 1.0]}},
        margins=to_json(margins(labels, labels, best="rule", baselines={"rule": labels})),
        parity={"logit_std": 0.0, "top1_agreement": 1.0},
        binds_logits=True,
        before=to_json(found)["drops"].get("student", {}),
    )
    return {check.name: (check.outcome, check.measured) for check in checks}


@pytest.mark.slow
def test_a_retrained_model_must_not_forget_the_world_as_it_was(labels):
    assert guardrail(labels, 30, 20) == {"drop_on_old_test": (PASS, pytest.approx(0.01))}
    assert guardrail(labels, 200, 20) == {"drop_on_old_test": (FAIL, pytest.approx(0.18))}
    assert guardrail(labels[:100], 6, 2)["drop_on_old_test"][0] is INCONCLUSIVE
    assert guardrail(labels, 200, None) == {"drop_on_old_test": (INCONCLUSIVE, None)}
    assert guardrail(labels, 200, 20, limit=None) == {}


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


ROLES = {"teacher": 0.2, "control": 0.6, "student": 0.4, "student_int8": 0.45}  # noise of each
UNITS = np.array([0.01, 1000.0])
PRICES = Task(
    kind=TaskKind.REGRESSION, outputs=("share", "price"), mean=(0.0, 0.0), scale=tuple(UNITS)
)
TAGS = Task(kind=TaskKind.MULTI_LABEL, outputs=("red", "green", "blue"))


@pytest.fixture
def prices(rng):
    """Labels, answers of models and of two baselines, numbers in units of their own."""
    labels = rng.normal(size=(300, 2)) * UNITS

    def answer(noise):
        return labels + noise * UNITS * rng.normal(size=labels.shape)

    baselines = {"mean": np.zeros((300, 2)), "linear": answer(0.8)}
    return labels, {role: answer(noise) for role, noise in ROLES.items()}, baselines


@pytest.fixture
def tags(rng):
    """The same of three labels at once, as logits."""
    labels = (rng.random((300, 3)) < 0.4).astype(np.float32)

    def answer(noise):
        return 2 * labels - 1 + 2 * noise * rng.normal(size=labels.shape)

    baselines = {"shares": np.full((300, 3), -0.4), "linear": answer(0.8)}
    return labels, {role: answer(noise) for role, noise in ROLES.items()}, baselines


def asked(task, case, metric=None, **truth):
    """Evaluate what a fixture made."""
    labels, answers, baselines = case
    return evaluate(
        answers,
        Truth(labels=labels, **truth),
        scoring_of(task, metric),
        references=References(best="linear", baselines=baselines),
        measured_through=dict.fromkeys(answers, "here"),
        task=task,
        confidence=0.95,
    )


def test_numbers_are_evaluated_in_their_units(prices):
    labels, answers, _ = prices
    found = asked(PRICES, prices)
    assert (found["metric"], found["num_samples"]) == ("rmse", 300)
    for role, own in answers.items():
        score, scaled = found["models"][role], (labels / UNITS, own / UNITS)
        assert score["rmse"].estimate == pytest.approx(
            np.sqrt(np.mean((scaled[0] - scaled[1]) ** 2))
        )
        assert score["mae"].estimate == pytest.approx(mean_absolute_error(*scaled))
        assert score["r2"].estimate == pytest.approx(r2_score(*scaled))
        assert score["calibration"] == []
    assert found["per_class_vs_control"] == []


def test_gains_and_drops_of_numbers_are_shares_of_the_others_error(prices):
    labels, answers, baselines = prices
    found = asked(PRICES, prices)["margins"]
    assert set(found) == {"student", "student_int8"}

    def rmse(own):
        return np.sqrt(np.mean(((own - labels) / UNITS) ** 2))

    for role, own in found.items():
        ours = rmse(answers[role])
        gains = {name: 1 - ours / rmse(given) for name, given in baselines.items()}
        assert {n: g.estimate for n, g in own.gain_vs_baselines.items()} == pytest.approx(gains)
        assert own.gain_vs_baseline == own.gain_vs_baselines["linear"]
        assert own.gain_vs_control.estimate == pytest.approx(1 - ours / rmse(answers["control"]))
        assert own.drop_vs_teacher.estimate == pytest.approx(1 - rmse(answers["teacher"]) / ours)
        assert own.gain_vs_humans is own.gain_vs_incumbent is None
    assert found["student"].drop_vs_float32 is None
    assert found["student_int8"].drop_vs_float32.estimate == pytest.approx(
        1 - rmse(answers["student"]) / rmse(answers["student_int8"])
    )


def test_numbers_agree_with_the_teachers_as_far_as_they_explain_them(prices):
    answers = prices[1]
    models = asked(PRICES, prices)["models"]
    assert models["teacher"]["agreement_with_teacher"] is None
    for role in ("control", "student"):
        expected = r2_score(answers["teacher"] / UNITS, answers[role] / UNITS)
        assert models[role]["agreement_with_teacher"].estimate == pytest.approx(expected)


def test_each_number_has_its_own_error_in_units_of_its_spread(prices):
    labels, answers, baselines = prices
    found = asked(PRICES, prices)["by_output"]
    assert found["outputs"] == ("share", "price")
    for role, own in (answers | {"baseline": baselines["linear"]}).items():
        columns = zip((labels / UNITS).T, (own / UNITS).T, strict=True)
        expected = [root_mean_squared_error(*pair) for pair in columns]
        assert found["values"][role] == pytest.approx(expected)


def test_one_number_has_no_picture_of_its_parts(prices):
    labels, answers, baselines = prices
    alone = Task(kind=TaskKind.REGRESSION, outputs=("share",), mean=(0.0,), scale=(0.01,))
    one = tuple({n: a[:, :1] for n, a in own.items()} for own in (answers, baselines))
    found = asked(alone, (labels[:, :1], *one), "mae")
    assert found["by_output"] == {}
    expected = mean_absolute_error(labels[:, 0], answers["student"][:, 0])  # in the label's unit
    assert found["models"]["student"]["mae"].estimate == pytest.approx(expected)


def test_rows_that_depend_on_each_other_are_told_to_every_comparison(prices):
    found = asked(PRICES, prices, blocks=np.arange(300) // 10)["margins"]["student_int8"]
    compared = (found.gain_vs_control, found.gain_vs_baseline, found.drop_vs_teacher,
                found.drop_vs_float32, *found.gain_vs_baselines.values())  # fmt: skip
    assert {(own.num_samples, own.num_blocks) for own in compared} == {(300, 30)}


def test_forecasts_are_judged_by_what_their_series_moves(prices, rng):
    labels, answers, _ = prices
    steps = Task(
        kind=TaskKind.REGRESSION, outputs=("1", "2"), mean=(0.0, 0.0), scale=tuple(UNITS),
        has_one_unit=True,
    )  # fmt: skip
    naive = rng.uniform(0.5, 2, 300)
    found = asked(steps, prices, "mase", naive_error=naive)
    assert found["figures"][0] == found["metric"] == "mase"
    scaled = np.abs(answers["student"] - labels) / naive[:, None]
    assert found["models"]["student"]["mase"].estimate == pytest.approx(scaled.mean())
    assert found["by_output"]["values"]["student"] == pytest.approx(scaled.mean(axis=0))


def test_several_labels_are_evaluated_label_by_label(tags):
    labels, answers, baselines = tags
    found = asked(TAGS, tags)
    assert found["metric"] == "label_accuracy"
    for role, own in answers.items():
        expected = 1 - hamming_loss(labels, own > 0)
        assert found["models"][role]["label_accuracy"].estimate == pytest.approx(expected)
        assert found["models"][role]["calibration"] == []
    for role, own in (answers | {"baseline": baselines["linear"]}).items():
        expected = ((own > 0) == labels).mean(axis=0)
        assert found["by_output"]["values"][role] == pytest.approx(expected)
    margins = found["margins"]["student"]
    shares = {n: 1 - hamming_loss(labels, a > 0) for n, a in (answers | baselines).items()}
    assert margins.drop_vs_teacher.estimate == pytest.approx(shares["teacher"] - shares["student"])
    gains = {name: own.estimate for name, own in margins.gain_vs_baselines.items()}
    assert gains == pytest.approx({n: shares["student"] - shares[n] for n in baselines})
    same = ((answers["student"] > 0) == (answers["teacher"] > 0)).all(axis=1).mean()
    assert found["models"]["student"]["agreement_with_teacher"].estimate == pytest.approx(same)


@pytest.mark.parametrize(("task", "name"), [(PRICES, "prices"), (TAGS, "tags")])
def test_without_a_teacher_nothing_is_said_of_it(task, name, request):
    labels, answers, baselines = request.getfixturevalue(name)
    known = {role: own for role, own in answers.items() if role != "teacher"}
    found = asked(task, (labels, known, baselines))
    assert all(own["agreement_with_teacher"] is None for own in found["models"].values())
    assert all(own.drop_vs_teacher is None for own in found["margins"].values())


@pytest.mark.parametrize(
    ("limits", "outcomes"),
    [
        ({"max": 0.5}, {"rmse": PASS}),
        ({"max": 0.1}, {"rmse": FAIL}),
        ({"max_drop_vs_teacher": 0.6}, {"drop_vs_teacher": PASS}),
        ({"max_drop_vs_teacher": 0.1}, {"drop_vs_teacher": FAIL}),
        ({"min_gain_vs_baseline": 0.4}, {"gain_vs_baseline": PASS}),
        ({"min_gain_vs_baseline": 0.6}, {"gain_vs_baseline": FAIL}),
    ],
)
def test_a_budget_of_an_error_is_held_against_what_was_evaluated(prices, limits, outcomes):
    found = to_json(asked(PRICES, prices))
    checks = quality_checks(
        parse_budget({"accuracy": {"metric": "rmse", **limits}}),
        artefact="m.onnx",
        target="t",
        metric=found["metric"],
        score=found["models"]["student"],
        margins=found["margins"]["student"],
        parity={"logit_std": 0.0, "top1_agreement": 0.0},
        binds_logits=True,
    )
    assert {check.name: check.outcome for check in checks} == outcomes
