import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.deployment.export import export_onnx
from distill.deployment.quantize import auto
from distill.deployment.quantize.auto import Auto
from distill.deployment.quantize.choice import (
    Candidate,
    Limits,
    Outcome,
    accept,
    agrees,
    decide,
    is_accurate,
)
from distill.deployment.quantize.graph import layers
from distill.deployment.quantize.layers import Probe, exclusions, in_groups
from distill.deployment.quantize.recipes import Float16, Source, StaticInt8
from distill.deployment.quantize.trials import Trials
from distill.errors import UsageError
from distill.runtime import OnnxModel
from distill.statistics.metrics import Estimate, compare_paired, proportion
from distill.statistics.scoring import Classes, Truth
from distill.training.models import ImageClassifier, PlainCNN

INT8, FLOAT16, FLOAT32, REPAIR = Outcome.INT8, Outcome.FLOAT16, Outcome.FLOAT32, Outcome.REPAIR


def candidate(recipe, low, high, good, precision="int8", reason=None):
    ratio = Estimate(estimate=(low + high) / 2, interval=(low, high))
    return Candidate(
        recipe=recipe,
        precision=precision,
        latency_ratio=ratio,
        accurate=good,
        holds=good,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("candidates", "outcome", "chosen"),
    [
        ([candidate("a", 0.6, 0.7, True), candidate("b", 0.4, 0.5, True)], INT8, "b"),
        ([candidate("a", 0.6, 0.7, True), candidate("b", 0.4, 0.5, False)], INT8, "a"),
        # faster by estimate alone is not shown
        ([candidate("a", 0.7, 1.01, True)], FLOAT32, None),
        ([candidate("a", 0.7, 1.01, True), candidate("b", 0.9, 0.99, True)], INT8, "b"),
        ([candidate("a", 1.1, 1.2, True)], FLOAT32, None),
        # what is missing is accuracy, and it would be faster
        ([candidate("a", 0.4, 0.5, False)], REPAIR, None),
        ([candidate("a", 0.4, 0.5, False), candidate("b", 1.0, 1.1, True)], REPAIR, None),
        # what is missing is accuracy, but it would not be faster
        ([candidate("a", 0.9, 1.1, False)], FLOAT32, None),
        ([candidate("a", 0.4, 0.5, False, reason="the same file as b")], FLOAT32, None),
        ([candidate("a", 0.4, 0.5, True, "float16")], FLOAT16, "a"),
        ([candidate("a", 0.4, 0.5, False, "float16")], FLOAT32, None),  # nothing mends it
        ([Candidate(recipe="a", precision="int8", holds=True)], FLOAT32, None),
        ([], FLOAT32, None),
    ],
)
def test_the_fastest_that_is_shown_faster_and_holds_is_chosen(candidates, outcome, chosen):
    decision = decide(candidates)
    assert (decision.outcome, decision.recipe) == (outcome, chosen)
    assert decision.why


@given(
    st.lists(
        st.tuples(st.floats(0.1, 2), st.floats(0, 1), st.booleans(), st.booleans()), max_size=6
    )
)
def test_nothing_slower_or_worse_is_ever_chosen(rows):
    found = [
        candidate(str(i), low, low + width, good, "int8" if is_int8 else "float16")
        for i, (low, width, good, is_int8) in enumerate(rows)
    ]
    decision = decide(found)
    fit = [c for c in found if c.holds and c.latency_ratio.interval[1] < 1]
    assert (decision.recipe is not None) == bool(fit)
    if decision.recipe is not None:
        chosen = next(c for c in found if c.recipe == decision.recipe)
        assert chosen in fit
        assert all(chosen.latency_ratio.estimate <= c.latency_ratio.estimate for c in fit)


def test_limits_are_held_by_estimate():
    right = np.ones(100, bool)
    worse = right.copy()
    worse[:2] = False
    drop, same = compare_paired(right, worse), proportion(worse)
    assert is_accurate(Limits(max_drop=0.02), drop)
    assert agrees(Limits(min_agreement=0.98), same)
    assert not is_accurate(Limits(max_drop=0.019), drop)
    assert not agrees(Limits(min_agreement=0.981), same)
    assert is_accurate(Limits(), None)
    assert agrees(Limits(), None)
    assert not is_accurate(Limits(max_drop=0.5), None)
    assert not agrees(Limits(min_agreement=0.5), None)
    assert is_accurate(Limits(max_drop=0.0), compare_paired(worse, right))  # better is no drop


def test_agreement_alone_is_not_worth_a_repair():
    fast = dataclasses.replace(candidate("a", 0.4, 0.5, False), accurate=True)
    assert decide([fast]).outcome is FLOAT32
    assert decide([fast, candidate("b", 0.4, 0.5, False)]).outcome is REPAIR
    assert accept(fast).outcome is INT8  # the only recipe, right as often as float32


def test_an_only_recipe_is_taken_as_it_is():
    good = accept(candidate("int8", 1, 1, True))
    bad = accept(candidate("int8", 1, 1, False))
    half = accept(candidate("float16", 1, 1, False, "float16"))
    none = accept(candidate("int8", 1, 1, None, reason="no room"))
    assert (good.outcome, good.recipe) == (INT8, "int8")
    assert (bad.outcome, bad.recipe) == (REPAIR, "int8")
    assert (half.outcome, half.recipe) == (FLOAT16, "float16")
    assert (none.outcome, none.recipe) == (FLOAT32, None)
    assert "no room" in none.why


@given(st.integers(0, 40), st.integers(1, 12))
def test_groups_are_runs_of_neighbours_that_hold_every_layer_once(num_layers, max_groups):
    names = [str(i) for i in range(num_layers)]
    found = in_groups(names, max_groups)
    assert [name for group in found for name in group] == names
    assert len(found) == min(num_layers, max_groups)
    sizes = [len(group) for group in found]
    assert not sizes or max(sizes) - min(sizes) <= 1


def probe(name, error, ratio):
    return Probe(layers=(name,), error=error, ratio=ratio)


def test_what_buys_no_latency_goes_first_then_what_costs_most_for_what_it_buys():
    probes = [
        probe("dear", 0.2, 0.8),  # costs 0.2 for 0.3 of float32's time
        probe("free", 0.1, 0.5),  # costs 0.1 for nothing
        probe("cheap", 0.3, 0.6),  # costs 0.3 for 0.1
        probe("worth it", 0.001, 0.9),
    ]
    found = exclusions(0.5, probes)
    assert found == [("free",), ("free", "cheap"), ("free", "cheap", "dear")]


def test_sets_end_where_float32_would_be_as_fast():
    probes = [probe("a", 0.5, 0.8), probe("b", 0.4, 0.8), probe("c", 0.3, 0.8)]
    assert exclusions(0.5, probes) == [("a",)]  # with b it would be 1.1


def test_layers_that_int8_slows_down_are_given_back():
    probes = [probe("slow", 1e-9, 0.9), probe("fast", 0.5, 1.5)]
    assert exclusions(1.2, probes) == [("slow",)]


def test_differences_within_the_noise_are_none():
    probes = [probe("a", 0.1, 0.49), probe("b", 0.2, 0.51), probe("c", 0.1, 0.53)]
    assert exclusions(0.5, probes, noise=0.02)[0] == ("a", "b")
    assert exclusions(0.5, []) == []


def test_noise_that_hides_every_difference_leaves_some_layers_in_int8():
    probes = [probe("a", 0.1, 0.9), probe("b", 0.2, 1.05)]
    assert exclusions(1.0, probes, noise=0.3) == [("a",)]


class Failing:
    precision = "int8"
    num_calibration_samples = 0

    def make(self, source, target):
        raise RuntimeError("no such operator\nsomewhere")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
    model = ImageClassifier(PlainCNN(10, 1, widths=(4, 8)), [0.3], [0.4])
    model(torch.from_numpy(images))
    export_onnx(model.eval(), (8, 8, 1), folder / "float32.onnx")
    return Source(folder / "float32.onnx", images, folder), images


@pytest.fixture
def trials(source, tmp_path):
    """Trials on answers that the float32 model itself gives; time is a table by recipe."""

    def make(times, **limits):
        own, images = source
        labels = OnnxModel(own.path).predict(images).argmax(1)
        asked = []

        def measure(paths):
            asked.append([path.stem for path in paths])
            ratios = {path.name: times(path.stem) for path in paths}
            return {
                name: Estimate(estimate=r, interval=(r - 0.01, r + 0.01))
                for name, r in ratios.items()
            }

        found = Trials(
            source=own,
            folder=tmp_path,
            inputs=images,
            truth=Truth(labels=labels),
            scoring=Classes(10),
            answers=None,
            limits=Limits(**limits),
            confidence=0.95,
            measure=measure,
            say=lambda text: None,
        )
        return found, asked

    return make


@pytest.mark.slow
def test_figures_of_a_candidate_are_those_of_its_file(trials, source):
    found, _ = trials(lambda name: 1.0)
    row = found.make("static", StaticInt8())
    own, images = source
    answers = [OnnxModel(p).predict(images) for p in (own.path, found.path("static"))]
    same = answers[0].argmax(1) == answers[1].argmax(1)
    assert row.agreement.estimate == pytest.approx(same.mean())
    assert row.accuracy_drop.estimate == pytest.approx(1 - same.mean())  # labels are float32's
    error = np.sqrt(np.mean((answers[1] - answers[0]) ** 2)) / np.std(answers[0])
    assert row.logit_std == pytest.approx(error, rel=1e-4)
    assert row.size_bytes == Path(found.path("static")).stat().st_size


def test_a_recipe_that_fails_is_a_row_with_its_reason(trials):
    found, asked = trials(lambda name: 0.5)
    search = Auto(recipes={"bad": Failing(), "static": StaticInt8()}, max_candidates=0)
    decision = search(found)
    assert found.found["bad"].reason == "no such operator somewhere"
    assert (decision.outcome, decision.recipe) == (INT8, "static")
    assert asked == [["float32", "static"]]


def test_one_file_of_each_structure_is_timed_and_twins_are_left_out(trials):
    found, asked = trials(lambda name: 0.5)
    recipes = {
        "static": StaticInt8(),
        "percentile": StaticInt8(calibration="percentile", percentile=99.0),
        "twin": StaticInt8(depthwise=False),
        "half": Float16(),
    }
    Auto(recipes=recipes, max_candidates=0)(found)
    assert asked == [["float32", "static", "half"]]
    assert found.found["percentile"].latency_of == "static"
    assert found.found["percentile"].latency_ratio.estimate == 0.5
    assert found.found["twin"].reason == "the same file as static"


def test_layers_are_searched_where_what_is_faster_is_not_accurate_enough(trials):
    # All of int8 is fast; agreement of 1.0 is asked, which no file of random weights need have.
    found, asked = trials(lambda name: 0.5 if name == "static" else 0.6, min_agreement=1.1)
    decision = Auto(recipes={"static": StaticInt8()}, max_candidates=9)(found)
    assert decision.outcome is FLOAT32  # no training mends agreement alone
    searched = [row for row in found.found.values() if row.base == "static"]
    assert 3 <= len(searched) <= 6  # beside the three of each layer alone
    assert {len(row.excluded) for row in searched[:3]} == {1}  # each layer once
    weighted = [layer.name for layer in layers(found.source.graph)]
    assert [row.excluded[0] for row in searched[:3]] == weighted
    assert all(row.latency_ratio is not None for row in searched)
    assert asked[0] == ["float32", "static"]


def test_a_search_over_layers_ends_with_the_first_that_will_do(trials):
    limits = {"min_agreement": 0.5}
    slow = "layers_2"  # leaving the second layer in float helps, the others do not
    found, _ = trials(lambda name: 0.7 if name == slow else 1.3, **limits)
    decision = Auto(recipes={"static": StaticInt8()}, max_candidates=9)(found)
    assert (decision.outcome, decision.recipe) == (INT8, slow)
    assert len(found.found) == 4


def test_no_layers_are_searched_where_a_recipe_will_do_or_no_room_is_given(trials):
    found, asked = trials(lambda name: 0.5)
    Auto(recipes={"static": StaticInt8()})(found)
    assert list(found.found) == ["static"]
    found, asked = trials(lambda name: 1.5)
    Auto(recipes={"static": StaticInt8()}, max_candidates=0)(found)
    assert asked == [["float32", "static"]]


def test_nothing_is_begun_when_time_is_up(trials):
    found, asked = trials(lambda name: 0.5)
    decision = Auto(recipes={"static": StaticInt8()}, max_seconds=-1)(found)
    assert (decision.outcome, asked) == (FLOAT32, [])
    assert "not tried" in found.found["static"].reason


@pytest.mark.parametrize("max_seconds", [50, 150, 10_000])
def test_no_group_of_layers_is_begun_when_time_is_up(max_seconds, trials, monkeypatch):
    found, _ = trials(lambda name: 1.5)
    now, probed, said = [0.0], [], []

    def error(recipe):
        now[0] += 100
        probed.append(recipe)
        return 1.0

    monkeypatch.setattr(auto, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(found, "error", error)
    found.say = said.append
    Auto(recipes={"static": StaticInt8()}, max_candidates=9, max_seconds=max_seconds)(found)
    begun = min(3, 1 + max_seconds // 100)  # of three groups, each of 100 s
    assert len(probed) == begun
    told = [text for text in said if "passed over" in text]
    assert told == [
        f"{3 - begun} of 3 groups of layers were passed over: {max_seconds} s were over"
    ] * (begun < 3)
    made = [row for row in found.found.values() if row.base == "static"]
    assert len(made) == (begun - 1 if begun < 3 else 3)


def test_accuracy_is_held_against_the_answers_that_are_given(source, tmp_path):
    own, images = source
    labels = OnnxModel(own.path).predict(images).argmax(1)
    wrong = np.eye(10)[(labels + 1) % 10]
    found = Trials(
        source=own, folder=tmp_path, inputs=images, truth=Truth(labels=labels),
        scoring=Classes(10), answers=wrong, limits=Limits(), confidence=0.95,
        measure=lambda paths: {}, say=lambda text: None,
    )  # fmt: skip
    assert found.make("static", StaticInt8()).accuracy_drop.estimate < -0.8


def test_answers_that_are_no_numbers_are_out_of_the_running(trials, monkeypatch):
    found, _ = trials(lambda name: 0.5)
    monkeypatch.setattr(OnnxModel, "predict", lambda self, images: np.full((64, 10), np.nan))
    assert "infinite" in found.make("half", Float16()).reason


@pytest.mark.parametrize("recipes", [{}, {"float32": StaticInt8()}])
def test_names_that_cannot_be_are_refused(recipes):
    with pytest.raises(UsageError, match="float32"):
        Auto(recipes=recipes)


def test_a_full_disk_is_no_property_of_a_recipe(trials, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    found, _ = trials(lambda name: 0.5)
    monkeypatch.setattr(Float16, "make", full)
    for asked in (lambda: found.make("half", Float16()), lambda: found.error(Float16())):
        with pytest.raises(OSError, match="No space left"):
            asked()
    assert found.found == {}
