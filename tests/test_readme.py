"""Claims about the README: every command in it is one that is taken as it is written."""

import re
import shlex

import pytest
from conftest import REPOSITORY
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distill.cli import ACTIONS, VERBS

TEXT = (REPOSITORY / "README.md").read_text()
FENCES = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LINES = [line for fence in FENCES for line in fence.replace("\\\n", " ").splitlines()]
COMMANDS = [
    line for line in LINES if re.match(r"(\S+=\S+ )*(python scripts/\w+\.py|distill \w+)", line)
]


def test_commands_are_found():
    verbs = {re.search(r"scripts/(\w+)\.py|distill (\w+)", line).group(0) for line in COMMANDS}
    assert len(verbs) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_as_it_is_written(command):
    words = shlex.split(re.sub(r"<[^>]*>", "FOLDER", command), comments=True)
    at = next(i for i, word in enumerate(words) if "scripts/" in word or word == "distill")
    name = words[at] if "scripts/" in words[at] else words[at + 1]
    verb = re.sub(r"scripts/(\w+)\.py", r"\1", name)
    assert verb in VERBS
    rest = words[at + 1 + (words[at] == "distill") :]
    overrides = [word for word in rest if "=" in word or word[0] in "~+"]
    assert {*rest} - {*overrides} - {"-m", "--help"} <= {*ACTIONS.get(verb, ())}
    if "-m" in rest:  # the first value of each
        overrides = [re.sub(r"=([^,\[{]*),.*", r"=\1", one) for one in overrides]
    OmegaConf.clear_resolvers()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        compose(
            verb, [one if " " not in one else re.sub("=(.*)", r"='\1'", one) for one in overrides]
        )
