import re
from xml.etree import ElementTree

import pytest

from distill.budget import Check, Choice, Outcome
from distill.deployment.report.sentences import distillation_sentence
from distill.deployment.report.write import choice_sentence, junit
from distill.pages import figure, render, size, svg


def gain(low, high):
    return {
        "estimate": (low + high) / 2,
        "interval": [low, high],
        "p_value": 0.01,
        "num_samples": 9,
    }


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.03, "helped"), (-0.03, -0.01, "hurt"), (-0.01, 0.02, "no difference")],
)
def test_the_sentence_says_what_the_interval_says(low, high, words):
    sentence = distillation_sentence(gain(low, high), "accuracy", 0.95)
    assert words in sentence
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in sentence


@pytest.mark.parametrize(
    ("metric", "teacher", "control", "first"),
    [
        ("accuracy", 0.75, 0.8, True),
        ("accuracy", 0.8, 0.8, True),
        ("accuracy", 0.85, 0.8, False),
        ("rmse", 2.0, 1.0, True),
        ("rmse", 0.5, 1.0, False),
    ],
)
def test_where_distillation_hurt_a_teacher_that_is_no_better_is_looked_at_first(
    metric, teacher, control, first
):
    models = {
        name: {metric: {"estimate": score, "interval": [score, score]}}
        for name, score in (("teacher", teacher), ("control", control))
    }
    said = distillation_sentence(gain(-0.03, -0.01), metric, 0.95, models)
    assert ("Look at the teacher first" in said) == first
    assert ("change the loss" in said) != first
    assert "teacher" not in distillation_sentence(gain(0.01, 0.03), metric, 0.95, models)
    alone = {"control": models["control"]}
    assert "change the loss" in distillation_sentence(gain(-0.03, -0.01), metric, 0.95, alone)


def checks():
    common = {"target": "cpu", "limit": 1.0, "measured": 2.0, "interval": None}
    return [
        Check(artefact="fp32", name="a", outcome=Outcome.PASS, **common),
        Check(artefact="int8", name="a", outcome=Outcome.INCONCLUSIVE, **common),
    ]


def test_junit_fails_what_does_not_pass_unless_another_artefact_is_chosen():
    states = {"fp32": Outcome.PASS, "int8": Outcome.INCONCLUSIVE}
    chosen = Choice(outcome=Outcome.PASS, artefact="fp32", per_artefact=states)
    none = Choice(outcome=Outcome.INCONCLUSIVE, artefact=None, per_artefact=states)
    good = ElementTree.fromstring(junit("n", checks(), chosen))
    assert (len(good.findall(".//failure")), len(good.findall(".//skipped"))) == (0, 1)
    bad = ElementTree.fromstring(junit("n", checks(), none))
    assert bad.find(".//failure").get("type") == "inconclusive"


def test_pages_escape_what_they_show():
    page = {
        "title": "<script>alert(1)</script>",
        "verdict": "pass",
        "headline": "a & b",
        "sentences": [],
        "warnings": [],
        "columns": [],
        "rows": [],
        "table_note": "",
        "pictures": [],
        "checks": [],
        "classes": [],
        "tables": [],
        "facts": [],
    }
    html = render("report.html", page)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html


def test_pictures_load_nothing_from_elsewhere():
    text = svg(lambda canvas: canvas.subplots().plot([1, 2]), width=3, height=2, title="A < B")
    assert text.startswith("<svg")
    assert "<title>A &lt; B</title>" in text
    assert not re.search(r'(href|src)="http', text)


def test_names_with_dollars_and_backslashes_are_shown_as_they_are():
    def draw(canvas):
        canvas.subplots().set_xlabel("price_$ and cost_$")

    text = svg(draw, width=3, height=2, title=r"\1 \g<9> $x")
    assert "price_$ and cost_$" in text
    assert r"<title>\1 \g&lt;9&gt; $x</title>" in text


@pytest.mark.parametrize(
    ("value", "text"), [(2_000_000, "2 MB"), (74_500, "74.5 kB"), (12, "12 B"), (None, "")]
)
def test_sizes(value, text):
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (12345.6, "12,346"), (None, "")])
def test_figures(value, text):
    assert figure(value) == text


def test_the_sentence_of_a_choice_names_what_is_not_decided():
    states = {"fp32": Outcome.PASS, "int8": Outcome.INCONCLUSIVE, "fp16": Outcome.FAIL}
    choice = Choice(outcome=Outcome.PASS, artefact="fp32", per_artefact=states)
    assert choice_sentence(choice, "cpu").endswith("Not decided: int8.")
    alone = Choice(outcome=Outcome.PASS, artefact="fp32", per_artefact={"fp32": Outcome.PASS})
    assert "decided" not in choice_sentence(alone, "cpu")
