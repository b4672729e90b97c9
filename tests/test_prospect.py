"""Claims about what is said before training: the range, and a budget beyond or beneath it."""

import pytest

from distill.budget import AccuracyBudget
from distill.deployment.report.prospect import prospect


def estimate(value, width=0.01):
    return {"estimate": value, "interval": [value - width, value + width]}


def standing(best=0.954, humans=None, incumbent=None, metric="accuracy"):
    baselines = {"logistic_regression": {metric: estimate(best)}}
    if incumbent is not None:
        baselines["incumbent"] = {metric: estimate(incumbent)}
    sign = 1 if metric == "rmse" else -1
    names = sorted(baselines, key=lambda name: sign * baselines[name][metric]["estimate"])
    score = {"score": {"majority": estimate(humans)}} if humans else None
    return {
        "metric": metric, "best": names[0], "baselines": baselines, "humans": score,
        "incumbent": baselines.get("incumbent"),
    }  # fmt: skip


def said(baseline, teacher=None, before=True, **limits):
    known = None if teacher is None else estimate(teacher)
    (only,) = prospect(baseline, known, AccuracyBudget(**limits), before=before)
    return only


def test_the_range_reaches_from_the_best_baseline_to_whoever_knows_most():
    assert said(standing(humans=0.992)).startswith(
        "Between 95.4 % (logistic regression) and 99.2 % (majority of humans) a student has 3.8 "
        "points to gain."
    )
    assert "98.0 % (teacher; majority of humans: 97.0 %)" in said(standing(humans=0.97), 0.98)


def test_what_is_not_known_is_not_guessed():
    assert said(standing()) == (
        "The best baseline stands at 95.4 % (logistic regression); nothing that knows more was "
        "asked yet. The teacher is not trained yet."
    )
    assert "not known on this set" in said(standing(), before=False)


def test_an_incumbent_is_named_once():
    assert "The incumbent stands at 93.0 %" in said(standing(incumbent=0.93))
    best = said(standing(incumbent=0.97))
    assert "97.0 % (incumbent)" in best
    assert "The incumbent stands" not in best


def test_a_baseline_that_nobody_beats_leaves_speed_and_size():
    assert "nothing to gain but speed and size" in said(standing(humans=0.95))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min": 0.999}, "99.9 % (`accuracy.min`), which is more than anyone reaches here"),
        ({"min": 0.9}, "which the best baseline already holds: ship that"),
        ({"min": 0.97}, "The budget asks for 97.0 % (`accuracy.min`)."),
        ({"max_drop_vs_teacher": 0.01}, "97.0 % (1 points under the teacher)."),
        ({"min": 0.5, "max_drop_vs_teacher": 0.01}, "97.0 % (1 points under the teacher)."),
    ],
)
def test_a_budget_beyond_or_beneath_the_range_is_called_so(limits, words):
    assert words in said(standing(humans=0.97), 0.98, **limits)


def test_a_margin_under_an_unknown_teacher_is_no_floor():
    assert "budget" not in said(standing(), max_drop_vs_teacher=0.01)
    # Alone, a baseline under the limit does not make it unreachable: nobody better was asked.
    assert "anyone" not in said(standing(), min=0.99)


def errors(best=0.5, **others):
    return standing(best, metric="rmse", **others)


def test_the_range_of_an_error_is_told_in_percent_of_it():
    assert said(errors(), 0.4) == (
        "Between RMSE 0.500 (logistic regression) and RMSE 0.400 (teacher) a student has 20.0 % to "
        "gain."
    )
    assert said(errors(incumbent=0.7)).endswith(
        "The incumbent stands at RMSE 0.700. The teacher is not trained yet."
    )
    assert said(errors(incumbent=0.3)).startswith(
        "The best baseline stands at RMSE 0.300 (incumbent); nothing that knows more"
    )


def test_a_teacher_that_errs_more_than_a_baseline_leaves_speed_and_size():
    found = said(errors(0.3), 0.4)
    assert "RMSE 0.300 (logistic regression), is at least as good as RMSE 0.400 (teacher)" in found
    assert "nothing to gain but speed and size" in found


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max": 0.1}, "RMSE of 0.100 at most (`accuracy.max`), which is more than anyone reaches"),
        ({"max": 0.6}, "which the best baseline already holds: ship that"),
        ({"max": 0.42}, "The budget asks for RMSE of 0.420 at most (`accuracy.max`)."),
        # A student of 0.444 is behind a teacher of 0.4 by 1 - 0.4 / 0.444, which is 10 %.
        ({"max_drop_vs_teacher": 0.1}, "RMSE of 0.444 at most (10 % over the teacher)."),
        (
            {"max": 0.9, "max_drop_vs_teacher": 0.1},
            "RMSE of 0.444 at most (10 % over the teacher).",
        ),
        ({"max": 0.43, "max_drop_vs_teacher": 0.1}, "RMSE of 0.430 at most (`accuracy.max`)."),
    ],
)
def test_a_budget_of_an_error_beyond_or_beneath_the_range_is_called_so(limits, words):
    assert words in said(errors(), 0.4, **limits)


def test_a_drop_of_all_is_no_limit_on_an_error():
    assert "budget" not in said(errors(), 0.4, max_drop_vs_teacher=1.0)


def test_an_exact_baseline_leaves_nothing_to_gain():
    assert "nothing to gain but speed and size" in said(errors(0.0), 0.4)


def test_labels_are_told_as_classes_are():
    found = said(standing(0.9, metric="label_accuracy"), 0.95)
    assert found.startswith(
        "Between 90.0 % (logistic regression) and 95.0 % (teacher) a student has 5.0 points"
    )


def test_an_interval_that_is_not_known_holds_and_misses_no_limit():
    baseline = errors()
    baseline["baselines"]["logistic_regression"]["rmse"]["interval"] = [None, None]
    assert said(baseline, 0.4, max=0.7).endswith("asks for RMSE of 0.700 at most (`accuracy.max`).")
    assert said(baseline, 0.4, max=0.1).endswith("asks for RMSE of 0.100 at most (`accuracy.max`).")
