import numpy as np
import pytest
from commands import REPOSITORY
from hydra.utils import instantiate
from omegaconf import OmegaConf

from distill.budget import Outcome, parse_budget
from distill.deployment.checks import compatibility_checks, quality_checks, target_checks
from distill.deployment.device.runner import MAX_CALLS
from distill.deployment.measurement import PROCESS

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def estimate(value, width=0.01):
    return {"estimate": value, "interval": [value * (1 - width), value * (1 + width)]}


def report(problems=(), **changes):
    row = {
        "artefact": "m.onnx", "p50_latency_ms": estimate(1.0), "p95_latency_ms": estimate(1.2),
        "p99_latency_ms": estimate(1.5), "samples_per_second": estimate(1000.0),
        "cold_start_ms": estimate(50.0), "peak_rss_bytes": estimate(8e7), "size_bytes": 1000,
        "golden": {"output_std": 1e-6},
    }  # fmt: skip
    conditions = {"first_decision_after": 5, "elapsed_s": 10.0, "utilisation": {}}
    return {
        "target": "t", "artefacts": [row | changes], "problems": list(problems),
        "conditions": conditions,
    }  # fmt: skip


def samples(ms, calls=3000):
    taken = np.full((calls // 10, 10), int(1e6 * ms)) + np.arange(calls).reshape(-1, 10) % 97
    return {"m.onnx": taken, PROCESS: np.arange(calls // 10) % 5}


def check(values, found=None, taken=None):
    (only,) = target_checks(
        parse_budget(values), found or report(), samples(1.0) if taken is None else taken
    )
    return only


@pytest.mark.parametrize(("limit", "outcome"), [(2.0, PASS), (0.5, FAIL)])
@pytest.mark.parametrize("level", [50, 95, 99])
def test_percentiles_are_decided_on_the_raw_calls(level, limit, outcome):
    found = check({"latency": {f"p{level}_ms": limit}})
    assert (found.outcome, found.name) == (outcome, f"p{level}_latency_ms")
    over, share = ("0", "0.0") if outcome is PASS else ("3,000", "100.0")
    said = f"{over} of 3,000 calls were over the limit: {share} %, where {100 - level} % may be"
    assert found.note.startswith(said)


def test_too_few_calls_say_how_long_it_would_take():
    found = check({"latency": {"p99_ms": 2.0}}, taken=samples(1.0, calls=100))
    assert found.outcome is INCONCLUSIVE
    # At least 477 calls of which none is over; 100 took 10 s.
    seconds = int(found.note.split("effort.max_seconds=")[1].rstrip("`)"))
    assert seconds >= 48


def test_a_disturbed_machine_may_pass_an_artefact_but_not_fail_it():
    disturbed = report(problems=["the hypervisor took half"])
    assert check({"latency": {"p95_ms": 2.0}}, disturbed).outcome is PASS
    missed = check({"latency": {"p95_ms": 0.5}}, disturbed)
    assert (missed.outcome, "disturbed" in missed.note) == (INCONCLUSIVE, True)
    assert check({"latency": {"cold_start_ms": 10.0}}, disturbed).outcome is INCONCLUSIVE
    assert check({"size_bytes": 10}, disturbed).outcome is FAIL  # nobody else changes its size


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"min_samples_per_second": 900.0}, PASS),
        ({"min_samples_per_second": 1000.0}, INCONCLUSIVE),
        ({"min_samples_per_second": 1100.0}, FAIL),
        ({"latency": {"cold_start_ms": 60.0}}, PASS),
        ({"peak_rss_bytes": 70_000_000}, FAIL),
        ({"size_bytes": 1000}, PASS),
        ({"parity": {"max_logit_std": 0.01}}, PASS),
        ({"parity": {"max_logit_std": 1e-7}}, FAIL),
    ],
)
def test_every_limit_is_a_check(values, outcome):
    assert check(values).outcome is outcome


def test_what_was_not_measured_is_neither_held_nor_missed():
    nothing = report(p95_latency_ms=None, samples_per_second=None, cold_start_ms=None, golden=None)
    for values in (
        {"latency": {"p95_ms": 1.0}},
        {"latency": {"cold_start_ms": 1.0}},
        {"min_samples_per_second": 1.0},
        {"parity": {"max_logit_std": 0.5}},
    ):
        found = check(values, nothing, {})
        assert (found.outcome, found.measured) == (INCONCLUSIVE, None)


def test_an_artefact_that_answers_otherwise_there_does_not_ship():
    rows = [
        {"artefact": name, "output_std": std, "finite": finite, "text": "said"}
        for name, std, finite in (
            ("a", 1e-6, True), ("b", None, None), ("c", 0.1, True), ("d", 0.0, False),
        )
    ]  # fmt: skip
    matrix = {"processors": [{"target": "q", "cpu": "old", "rows": rows}]}
    found = compatibility_checks(matrix, ["a", "b", "c", "d"], 0.01)
    assert [c.outcome for c in found] == [PASS, FAIL, FAIL, FAIL]
    found = compatibility_checks(matrix, ["a", "b", "c", "d"], None)
    assert [c.outcome for c in found] == [PASS, FAIL, PASS, FAIL]
    assert compatibility_checks({}, ["a"], 0.01) == []


def test_an_end_without_bound_survives_json_and_decides_nothing():
    open_ended = {"estimate": 50.0, "interval": [None, None]}
    found = report(cold_start_ms=open_ended, samples_per_second=open_ended)
    assert check({"latency": {"cold_start_ms": 60.0}}, found).outcome is INCONCLUSIVE
    assert check({"min_samples_per_second": 1.0}, found).outcome is INCONCLUSIVE


def test_a_given_pace_says_why_there_is_no_throughput():
    found = check({"min_samples_per_second": 1.0}, report(samples_per_second=None))
    assert "scenario=offline" in found.note


def quality(limits, metric="rmse", parity=None, binds_logits=False, **margins):
    """Hold limits against one artefact whose metric is 0.5 and whose gains are 0."""
    nothing = {"drop_vs_teacher": None, "drop_vs_float32": None, "gain_vs_incumbent": None}
    checks = quality_checks(
        parse_budget({"accuracy": limits, "parity": parity or {}}),
        artefact="m.onnx",
        target="t",
        metric=metric,
        score={metric: {"estimate": 0.5, "interval": [0.4, 0.6]}},
        margins=nothing | {"gain_vs_baseline": gain(0.0)} | margins,
        parity={"logit_std": 1e-6, "top1_agreement": 0.2},
        binds_logits=binds_logits,
    )
    assert all("teacher.test_path" in check.note for check in checks if check.measured is None)
    return {check.name: check.outcome for check in checks}


def gain(value, width=0.02):
    return {"estimate": value, "interval": [value - width, value + width]}


@pytest.mark.parametrize("metric", ["rmse", "mae", "mase"])
def test_an_error_has_to_be_at_most_its_limit(metric):
    for limit, outcome in ((0.7, PASS), (0.5, INCONCLUSIVE), (0.3, FAIL)):
        assert quality({"metric": metric, "max": limit}, metric) == {metric: outcome}


@pytest.mark.parametrize("metric", ["accuracy", "label_accuracy"])
def test_a_share_has_to_be_at_least_its_limit(metric):
    for limit, outcome in ((0.3, PASS), (0.5, INCONCLUSIVE), (0.7, FAIL)):
        assert quality({"min": limit}, metric) == {metric: outcome}


@pytest.mark.parametrize("metric", ["accuracy", "label_accuracy", "rmse"])
def test_margins_are_held_alike_whatever_decides(metric):
    drops = {"max_drop_vs_teacher": 0.05, "max_drop_vs_float32": 0.05}
    worse = {"drop_vs_teacher": gain(0.1), "drop_vs_float32": gain(0.01)}
    assert quality(drops, metric, **worse) == {"drop_vs_teacher": FAIL, "drop_vs_float32": PASS}
    gains = {"min_gain_vs_baseline": 0.05}
    better = {"gain_vs_baseline": gain(0.1), "gain_vs_incumbent": gain(0.06)}
    expected = {"gain_vs_baseline": PASS, "gain_vs_incumbent": INCONCLUSIVE}
    assert quality(gains, metric, **better) == expected
    assert quality({"max_drop_vs_teacher": 0.05}, metric) == {"drop_vs_teacher": INCONCLUSIVE}


@pytest.mark.parametrize("metric", ["label_accuracy", "rmse", "mae", "mase"])
def test_only_of_classes_the_largest_output_has_to_be_the_same(metric):
    limits = {"max_logit_std": 0.01, "min_top1_agreement": 0.99}
    asked = {"parity": limits, "binds_logits": True}
    assert quality({}, metric, **asked) == {"parity_logit_std": PASS}
    expected = {"parity_logit_std": PASS, "parity_top1_agreement": FAIL}
    assert quality({}, "accuracy", **asked) == expected


def test_a_gain_of_which_nothing_is_known_is_no_gain_and_no_loss():
    unknown = {"estimate": 0.3, "interval": [None, 1.0]}  # of a single block of rows
    limits = {"min_gain_vs_baseline": 0.0, "max_drop_vs_teacher": 0.5}
    found = quality(limits, gain_vs_baseline=unknown, drop_vs_teacher=unknown)
    assert set(found.values()) == {INCONCLUSIVE}


def test_an_error_on_a_single_stretch_of_rows_holds_and_misses_no_limit():
    unknown = {"estimate": 0.5, "interval": [None, None]}
    for limit in (0.4, 0.6):
        (found,) = quality_checks(
            parse_budget({"accuracy": {"max": limit}}), artefact="m.onnx", target="t",
            metric="rmse", score={"rmse": unknown}, parity={}, binds_logits=False,
            margins={"drop_vs_teacher": None, "drop_vs_float32": None, "gain_vs_incumbent": None,
                     "gain_vs_baseline": gain(0.0)},
        )  # fmt: skip
        assert (found.outcome, found.measured) == (INCONCLUSIVE, 0.5)


def test_beside_a_model_without_any_error_no_margin_is_held():
    infinite = {"estimate": None, "interval": [None, None]}  # minus infinity in JSON
    found = quality({"min_gain_vs_baseline": -0.5}, gain_vs_baseline=infinite)
    assert found == {"gain_vs_baseline": FAIL}
    assert quality({"max_drop_vs_teacher": 0.0}, drop_vs_teacher=infinite) == {
        "drop_vs_teacher": PASS  # it is the artefact that never errs
    }


def test_an_inconclusive_figure_says_how_many_samples_would_tell():
    def noted(value, limit, num_samples=719):
        margins = {"drop_vs_teacher": value, "drop_vs_float32": None, "gain_vs_incumbent": None}
        (found,) = quality_checks(
            parse_budget({"accuracy": {"max_drop_vs_teacher": limit}}), artefact="m.onnx",
            target="t", metric="accuracy", score={"accuracy": gain(0.9)},
            parity={"top1_agreement": 1.0},
            margins=margins | {"gain_vs_baseline": gain(0.0)}, binds_logits=False,
            num_samples=num_samples,
        )  # fmt: skip
        return found.note

    told = "test samples would tell; 719 do not"
    assert noted(gain(0.02), 0.03) == f"about 2,900 {told}"  # an interval half as wide
    assert noted(gain(0.04), 0.03) == f"about 2,900 {told}"
    lopsided = {"estimate": 0.02, "interval": [-0.5, 0.04]}
    assert noted(lopsided, 0.03) == f"about 2,900 {told}"
    for value in (0.029, 0.03):
        assert noted(gain(value), 0.03) == f"more than 72,000 {told}"
    assert noted(gain(0.0), 0.03) is None  # it holds
    assert noted({"estimate": 0.02, "interval": [None, 0.04]}, 0.03)
    assert noted({"estimate": 0.04, "interval": [None, 0.05]}, 0.03) is None
    assert "teacher.test_path" in noted(None, 0.03)
    assert noted(gain(0.02), 0.03, num_samples=None) is None


def test_the_quick_effort_s_first_calls_of_a_fast_model_bear_a_tail_that_comes_in_bursts():
    effort = instantiate(OmegaConf.load(REPOSITORY / "conf" / "effort" / "quick.yaml"))
    shape = (effort.processes, effort.rounds * MAX_CALLS)
    rng = np.random.default_rng(0)
    taken = rng.normal(12_000, 500, shape)
    taken[0, 40:44] = 9e6  # another program came between
    rounds = {
        "m.onnx": taken.astype(np.int64).reshape(-1, MAX_CALLS),
        PROCESS: np.repeat(np.arange(effort.processes), effort.rounds),
    }
    found = report()
    found["conditions"]["first_decision_after"] = effort.processes
    assert check({"latency": {"p95_ms": 5.0}}, found, taken=rounds).outcome is PASS
