"""Claims about how long an attempt of a search is thought to take, by arithmetic."""

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from distill.budget import Outcome
from distill.cli import config_dir
from distill.deployment.search.plan import Plan
from distill.deployment.search.preflight import Preflight
from distill.deployment.search.record import Entry
from distill.files import write_json
from distill.verbs.run.workspace import Workspace
from distill.verbs.searching.durations import seconds_of_an_attempt
from distill.verbs.searching.race import Race

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


@pytest.mark.parametrize(
    ("minutes", "seconds", "trains"),
    [(14.1, 0, True), (13.4, 0, False), (14.1, 60, False), (0.6, 0, False)],
)
def test_no_teacher_is_trained_for_attempts_of_which_none_can_end_in_time(
    tmp_path, minutes, seconds, trains
):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("search", ["trainer.max_epochs=10", "quantize=auto"])
    workspace = Workspace(cfg, tmp_path, Console())
    write_json(tmp_path / "manifests/preflight.json", {"seconds": seconds})
    # What an earlier sitting did next does not count: it would end otherwise.
    write_json(tmp_path / "manifests/train/teacher.json", {"seconds": 5000})
    race = Race(workspace, Plan(max_minutes=minutes), {}, {}, [entry("a")])
    assert race.may_train() == trains  # 2 * AUTO + BENCHMARK are 13.5 minutes
    if not trains:
        told = f"an attempt may take {2 * AUTO + BENCHMARK} s beside its trainings"
        assert told in race.stopped
        assert "`quantize.max_seconds`" in race.stopped
        assert f"leaves {60 * minutes - seconds:.0f} s" in race.stopped


def test_nothing_is_trained_a_little_where_no_attempt_can_follow_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.verbs.searching.race.on_validation", lambda workspace: None)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("search", ["trainer.max_epochs=10", "quantize=auto"])
    write_json(tmp_path / "manifests/train/teacher.json", {"seconds": 60})
    race = Race(Workspace(cfg, tmp_path, Console()), Plan(max_minutes=14), {}, {}, [entry("a")])
    assert race.may_train()
    race.train_rungs()  # 13 minutes are left
    assert race.stopped == "the time was up before all had been trained for 1 epochs"


def entry(name):
    preflight = Preflight(
        candidate=name, outcome=Outcome.PASS, cost_ms=1.0, p95_latency_ms=None,
        size_bytes=1, precision="int8", macs=1, checks=[],
    )  # fmt: skip
    return Entry(name=name, student={}, preflight=preflight)
