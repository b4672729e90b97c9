"""Claims about what users type: paths as they are, and the rest as Hydra's grammar means it."""

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from distill.verbs.console.words import readable


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


LIST = ["Köln.onnx", "b#.onnx", 3]


def test_lists_and_sweeps_stay_lists_and_sweeps():
    assert value_of(readable("artefacts=[Köln.onnx,b#.onnx,3]", sweeps=False)) == LIST
    assert readable("input=Köln,b,3", sweeps=True) == 'input="Köln",b,3'
    swept = OverridesParser.create().parse_override('input="Köln",b,3')
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
