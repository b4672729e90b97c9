"""Claims about what users type: paths as they are, and the rest as Hydra's grammar means it."""

import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from distill.errors import kind_advice
from distill.verbs.console.words import readable, take_any_names


@pytest.fixture(autouse=True)
def names():
    """As the front door has it."""
    take_any_names()


def value_of(override):
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize(
    "value",
    [
        "Fotos_Köln",
        "写真/猫",
        "my photos & more",
        "it's",
        'the "best" ones',
        "C#/a;b",
        "photos (1)",
        "photo(1).csv",
        "a=b",
        "a{b}",
        "trailing!\\",
        "ß\\",
        "Köln, Bonn",
        "sqlite:///predictions.db?mode=ro",
        "~someone/else",
    ],
)
def test_a_value_is_what_was_typed(value):
    assert value_of(readable(f"input={value}", sweeps=False)) == value
    assert value_of(readable(f"+data.root={value}", sweeps=False)) == value


@pytest.mark.parametrize(
    "override",
    [
        "input=photos",
        "artefacts=[a.onnx,b.onnx]",
        "costs={owl:3,dog:{x:[1]}}",
        "input='Köln'",
        'input="a, b"',
        "out=${name}/x",
        "loss=kd,dkd",
        "seed=range(1,4)",
        "name=choice(a,b)",
        "lr=interval(0,1)",
        "~student.widths",
        "~student.widths=3",
        "++student.width=16",
        "optimizer.lr=1e-3",
        "a=b\\,c",
        "a=",
        "--config-dir=Köln",
        "-m",
        "student.name=mobil*",
        "lr=choise(1,2)",  # a mistake, which stays one
        "costs={Köln",
    ],
)
def test_what_the_grammar_reads_or_what_is_broken_stays_as_it_is(override):
    assert readable(override, sweeps=False) == override
    assert readable(override, sweeps=True) == override


def test_a_leading_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert value_of(readable("data.root=~/photos", sweeps=False)) == f"{tmp_path}/photos"
    assert value_of(readable("data.root=~/Köln & Bonn", sweeps=False)) == f"{tmp_path}/Köln & Bonn"
    assert value_of(readable("data.root=~", sweeps=False)) == str(tmp_path)
    assert value_of(readable("a=[~/a,b]", sweeps=False)) == [f"{tmp_path}/a", "b"]


@pytest.mark.parametrize(
    "value", ["2024", "2024_10", "1e5", "-3", ".5", "007", "1_0.5", "inf", "true"]
)
def test_a_path_that_looks_like_a_number_is_a_path(value):
    keys = (
        "run",
        "run_dir",
        "data.path",
        "+data.unlabelled",
        "++data.base.data.version",
        "start_from",
    )
    for key in keys:
        assert value_of(readable(f"{key}={value}", sweeps=False)) == value
    assert value_of(readable(f"artefacts=[{value}, b.onnx]", sweeps=False)) == [value, "b.onnx"]
    swept = OverridesParser.create().parse_override(readable(f"run={value},b", sweeps=True))
    assert [own.strip('"') for own in swept.sweep_string_iterator()] == [value, "b"]


def test_what_is_no_path_stays_a_number_and_null_is_nothing():
    assert value_of(readable("version=2024", sweeps=False)) == 2024
    assert value_of(readable("trainer.max_epochs=1_0", sweeps=False)) == 10
    assert value_of(readable("run=null", sweeps=False)) is None


NAMES = [
    "credit amount", "inc.usd", "Größe", "a: b", "50% {of}, [it]", "a=b", "2024", "null", "1e3",
    "%u41%", " blank ", "it's", 'the "best"', "C:\\x", "写真", "`x`", "-x", "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_key_of_a_dictionary_is_any_name_in_quotes(name):
    for quote in Quote:
        typed = QuotedString(text=name, quote=quote).with_quotes()
        override = f'+data.kinds={{zip: category, {typed} : number, x: "{{\\"a\\": 1}}"}}'
        assert readable(override, sweeps=False) == override
        expected = {"zip": "category", name: "number", "x": '{"a": 1}'}
        assert value_of(override) == expected
        parsed = OverridesParser.create().parse_override(override)
        assert parsed.input_line == override
        assert value_of(f"x={parsed.get_value_element_as_str()}") == expected  # as -m does


@pytest.mark.parametrize("name", ["credit amount", "Größe", "写真", "ß", "a&b", "it's", "(x)"])
def test_a_name_at_the_end_of_a_key_is_as_it_is(name):
    assert value_of(readable(f"+data.kinds.{name}=category", sweeps=False)) == {name: "category"}
    typed = readable(f"+data.kinds.{name}=Köln & more", sweeps=False)
    assert value_of(typed) == {name: "Köln & more"}


def test_a_key_of_any_letters_needs_no_quotes():
    assert value_of(readable("costs={Größe: 3, owl:1}", sweeps=False)) == {"Größe": 3, "owl": 1}
    assert value_of(readable("costs={owl:{ß:3}}", sweeps=False)) == {"owl": {"ß": 3}}
    assert value_of(readable("input=a,Köln:b", sweeps=False)) == "a,Köln:b"


@pytest.mark.parametrize("name", [*NAMES, "zip", "_x1", "back\\", '\\"', "\\\\"])
def test_the_advice_on_the_kind_of_a_column_can_be_typed(name):
    (typed,) = shlex.split(f"distill {kind_advice(name)}")[1:]
    parsed = OverridesParser.create().parse_override(readable(typed, sweeps=False))
    if name in ("zip", "_x1", "null"):
        assert (parsed.key_or_group, parsed.value()) == (f"data.kinds.{name}", "category")
    else:
        assert (parsed.key_or_group, parsed.value()) == ("data.kinds", {name: "category"})


LIST = ["Köln.onnx", "b#.onnx", 3]


def test_lists_and_sweeps_stay_lists_and_sweeps():
    assert value_of(readable("costs=[Köln.onnx,b#.onnx,3]", sweeps=False)) == LIST
    assert readable("name=Köln,b,3", sweeps=True) == 'name="Köln",b,3'
    swept = OverridesParser.create().parse_override('name="Köln",b,3')
    assert swept.is_sweep_override()


def test_escapes_are_read_as_outside_of_quotes():
    assert value_of(readable("input=Köln\\, Bonn", sweeps=False)) == "Köln, Bonn"


@pytest.mark.slow
def test_a_verb_takes_a_path_as_it_is(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = cli("predict", "artefact=~/mod (1).onnx", "input=Fotos_Köln & it's", "--cfg", "job")
    told = yaml.safe_load(ran.stdout.partition("\n")[2] if ran.stdout[0] == "#" else ran.stdout)
    assert told["artefact"] == f"{tmp_path}/mod (1).onnx"
    assert told["input"] == "Fotos_Köln & it's"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("input=[Köln,{]", "at: 'ö'. Put quotes around"),
        ("kö=3", "A key is of ASCII letters"),
        ("input=choice(ö)", "'input=\"...\"'"),
    ],
)
def test_what_cannot_be_read_is_told_with_how_it_could(cli, override, says):
    ran = cli("predict", "artefact=x.onnx", override)
    assert ran.code == 2
    assert f"can be read but got `{override}`" in ran.stderr
    assert says in ran.stderr
