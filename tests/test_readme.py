"""Claims about the README: every command in it is one that is taken as it is written."""

import re
import shlex

import numpy as np
import pytest
import reach_shown
from commands import REPOSITORY, SHORT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distill.cli import ACTIONS, VERBS
from distill.files import read_json

TEXT = (REPOSITORY / "README.md").read_text()
FENCES = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LINES = [line for fence in FENCES for line in fence.replace("\\\n", " ").splitlines()]
COMMANDS = [
    line for line in LINES if re.match(r"(\S+=\S+ )*(python scripts/\w+\.py|distill \w+)", line)
]


def test_commands_are_found():
    verbs = {re.search(r"scripts/(\w+)\.py|distill (\w+)", line).group(0) for line in COMMANDS}
    assert len(verbs) > 10


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_as_it_is_written(command):
    command = re.sub(r"--config-dir \S+ target=\w+", "", command)  # a folder of the reader's
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


def test_the_table_is_what_the_committed_measurement_says(tmp_path):
    results = REPOSITORY / "benchmarks" / "results"
    reach_shown.write(read_json(results / "reach.json"), tmp_path)
    table = (tmp_path / "reach.md").read_text()
    assert table == (results / "reach.md").read_text()
    assert table.strip() in TEXT


def fence(language, opens):
    """The code block that begins so."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(opens))
    return found


def command_with(part):
    (line,) = (line for line in COMMANDS if part in line)
    return shlex.split(line)


@pytest.mark.slow
def test_ones_own_network_loss_and_data_train_as_they_are_written(cli, tmp_path, rng):
    (tmp_path / "mine.py").write_text(fence("python", "# mine.py"))
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (300, 12, 12, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(300) % 2)
    overrides = [
        word
        for part in ("mine.Net '~student", "mine.Loss", "mine.photos")
        for word in command_with(part)[2:]
    ]
    ran = cli("train", "student", "run_dir=run", *overrides, *SHORT)
    assert ran.code == 0, ran.stderr
    num_parameters = 3 * 16 * 9 + 16 + 256 * 2 + 2
    assert ran.document["student"]["num_parameters"] == num_parameters


def test_ones_own_target_is_found(cli, tmp_path):
    folder = tmp_path / "conf_of_mine" / "target"
    folder.mkdir(parents=True)
    (folder / "kitchen.yaml").write_text(fence("yaml", "defaults: [raspberry_pi_5]"))
    ran = cli("benchmark", *command_with("target=kitchen")[2:], "--cfg", "job")
    assert ran.code == 0, ran.stderr
    target = OmegaConf.create(ran.stdout).target
    assert (target.name, target.host, target.num_threads) == ("kitchen", "pi@kitchen", 4)
