"""Claims about what `--help` promises: every override and example in it is one that is taken."""

import re
import shlex

import pytest
from conftest import REPOSITORY
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
