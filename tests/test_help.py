"""Claims about what `--help` promises: every override and example in it is one that is taken."""

import re
import shlex

import pytest
from commands import REPOSITORY
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distill.cli import ACTIONS, VERBS

CONF = REPOSITORY / "conf"


def composed(verb, overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(verb, overrides)


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_is_read_and_written_and_which_overrides_are_often_needed(verb, cli):
    ran = cli(verb, "--help")
    for word in ("reads", "writes", "often"):
        assert re.search(rf"^#   {word} +\S", ran.stdout, re.MULTILINE), word
    often = shlex.split(re.search(r"^#   often +(.*)$", ran.stdout, re.MULTILINE)[1])
    assert len(often) >= 5
    OmegaConf.clear_resolvers()
    composed(verb, often)  # raises where there is no such key, group or option


@pytest.mark.parametrize("verb", VERBS)
def test_examples_in_help_are_taken_as_they_are_written(verb, cli):
    ran = cli(verb, "--help")
    examples = re.findall(r"^#   distill (.*)$", ran.stdout, re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        said, *words = shlex.split(example)
        assert said == verb
        overrides = [word for word in words if "=" in word]
        assert {*words} - {*overrides} <= {*ACTIONS.get(verb, ())}
        composed(verb, [re.sub(r"=(.* .*)", r"='\1'", override) for override in overrides])


def test_help_of_chosen_options_is_their_commented_yaml(cli):
    ran = cli("pipeline", "--help", "teacher=onnx", "effort@preflight_effort=quick", "seed=3")
    assert ran.code == 0
    for group, package, option in (
        ("teacher", "teacher", "onnx"),
        ("effort", "preflight_effort", "quick"),
    ):
        text = (CONF / group / f"{option}.yaml").read_text().strip()
        assert f"{group}={option}, keys under `{package}.`:\n{text}\n" in ran.stdout
    assert "groups, chosen by" not in ran.stdout
    assert "baselines=mean" in cli("baseline", "baselines=[mean,median]", "--help").stdout


def test_help_of_chosen_options_names_what_is_near_an_unknown_one(cli):
    ran = cli("pipeline", "--help", "teacher=onx")
    assert (ran.code, ran.stderr) == (
        2,
        "error: Unknown option `teacher=onx`. Did you mean `onnx`?\n",
    )
    ran = cli("pipeline", "--help", "techer=onnx")
    assert (ran.code, "Did you mean `teacher`" in ran.stderr) == (2, True)


def test_help_shows_options_of_a_users_own_folder(cli, tmp_path):
    (tmp_path / "mine/target").mkdir(parents=True)
    (tmp_path / "mine/target/kitchen.yaml").write_text("name: kitchen  # ours\n")
    for said in (["--config-dir", "mine"], ["--config-dir=mine"]):
        ran = cli("benchmark", *said, "target=kitchen", "--help")
        assert "target=kitchen, keys under `target.`:\nname: kitchen  # ours\n" in ran.stdout


def test_help_says_how_options_are_asked_for(cli):
    assert "distill pipeline --help group=option" in cli("pipeline", "--help").stdout


def test_a_table_must_be_told_as_well_as_by_what_costs_nothing_and_stops_where_it_overfits():
    cfg = composed("pipeline", ["experiment=table_ensemble"])
    assert cfg.budget.accuracy.min_gain_vs_baseline == 0
    stopping = cfg.callbacks.early_stopping  # of control and student alike
    assert (stopping.monitor, stopping.patience) == ("val/selection", 10)
    assert composed("pipeline", ["experiment=series"]).callbacks == {}
