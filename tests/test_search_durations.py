"""Claims about how long an attempt of a search is thought to take, by arithmetic."""

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from distill.cli import config_dir
from distill.files import write_json
from distill.verbs.learning.members import TEACHER_FACTS
from distill.verbs.run.workspace import Workspace
from distill.verbs.searching.durations import seconds_of_an_attempt

PER_EPOCH = 2.0
TRAININGS = 2 * 10 * PER_EPOCH  # student and control
BENCHMARK, REPAIR = 30, 3 * PER_EPOCH
AUTO = 300 + 3 * 30  # its limit, and three runs that time files


@pytest.fixture
def expected(tmp_path):
    """Estimate an attempt after others, each a mapping of stages to seconds."""

    def seconds(*overrides, before=()):
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = compose("search", ["trainer.max_epochs=10", *overrides])
        write_json(tmp_path / TEACHER_FACTS, {})
        folders = [tmp_path / f"attempts/{number}" for number in range(len(before))]
        for folder, stages in zip(folders, before, strict=True):
            for name, took in stages.items():
                write_json(folder / f"manifests/{name}.json", {"seconds": took})
        return seconds_of_an_attempt(Workspace(cfg, tmp_path, Console()), PER_EPOCH, folders)

    return seconds


@pytest.mark.parametrize(
    ("overrides", "seconds"),
    [
        (["quantize=none"], TRAININGS + BENCHMARK),
        (["quantize=none", "seeds=3"], 3 * TRAININGS + BENCHMARK),
        (["quantize=static"], TRAININGS + REPAIR + BENCHMARK),
        (["quantize=dynamic"], TRAININGS + BENCHMARK),  # what cannot be repaired
        (["quantize=auto"], TRAININGS + AUTO + REPAIR + AUTO + BENCHMARK),
        (["quantize=auto", "repair=null"], TRAININGS + AUTO + BENCHMARK),
        (["quantize=auto", "quantize.max_candidates=0", "repair=null"], TRAININGS + 360),
        (
            ["quantize=auto", "budget.accuracy.max_drop_vs_float32=null"],
            TRAININGS + AUTO + BENCHMARK,  # nothing is less accurate than it may be
        ),
        (
            ["quantize=static", "repair.trainer.max_epochs=-1"],
            TRAININGS + 10 * PER_EPOCH + BENCHMARK,
        ),
    ],
)
def test_before_the_first_attempt_the_configured_limits_count(expected, overrides, seconds):
    assert expected(*overrides) == pytest.approx(seconds)


def test_after_an_attempt_it_is_what_that_took_but_for_its_trainings(expected):
    first = {"quantize": 50, "benchmark": 25, "export": 5, "train/student": 1e6, "baseline": 0}
    second = {"quantize": 40, "train/student_qat": 20, "quantize_repaired": 60, "benchmark": 20}
    once = expected("quantize=auto", before=[first])
    assert once == pytest.approx(TRAININGS + 50 + REPAIR + 50 + 30)
    twice = expected("quantize=auto", before=[first, second])
    assert twice == pytest.approx(TRAININGS + 50 + 20 + 60 + 30)
