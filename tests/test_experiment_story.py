import json

import numpy as np
import pytest
import sqlalchemy as sa

from distill.errors import UserError
from distill.files import to_json
from distill.production.experiment.page import page
from distill.production.experiment.policy import Contender, Policy, Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.experiment.story import document, find, tell
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.moves import Move, add_move
from distill.production.prediction_log.records import Feedback, Prediction, new_id
from distill.production.prediction_log.writer import LogWriter, WriterOptions

START = 1_700_000_000.0
SETTING = Setting(
    champion=Contender(name="digits", version=1, artefact_sha256="a" * 64),
    challenger=Contender(name="digits", version=2, artefact_sha256="b" * 64),
    policy=Policy(),
    slow_ms=50.0,
)


def moved(engine: sa.Engine, number: int, time: float, state: State, why: object = None) -> None:
    assert add_move(
        engine,
        Move(
            experiment=SETTING.experiment,
            number=number,
            time=time,
            state=json.dumps(to_json(state)),
            evidence=json.dumps(to_json(why)),
        ),
    )


def shadowed(engine: sa.Engine, accuracies: tuple[float, float], count: int = 400) -> None:
    """Write what both answered to requests of a unit each, a second apart, all labelled."""
    hard = np.random.default_rng(0).random((count, 2))
    truths = []
    with LogWriter(engine, WriterOptions(capacity=100_000)) as writer:
        for at in range(count):
            request, time = new_id(START + at), START + at
            for who, role in ((SETTING.champion, "champion"), (SETTING.challenger, "shadow")):
                right = hard[at, 0] < accuracies[role == "shadow"]
                row = Prediction(
                    id=request if role == "champion" else new_id(time),
                    request=request,
                    model=who.name,
                    version=who.version,
                    artefact_sha256=who.artefact_sha256,
                    role=role,
                    experiment=SETTING.experiment,
                    stage="shadow",
                    unit=f"unit {at}",
                    label=3 if right else 4,
                    latency_ms=80.0 if role == "shadow" and at < 5 else 2.0,
                    time=time,
                )
                writer.put(row)
            truths.append(Feedback(prediction=request, label=3, time=time))
    for truth in truths:
        add_feedback(engine, truth)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def engine(url):
    engine = open_log(url)
    moved(engine, 1, START, State(stage=Stage.SHADOW, since=START), SETTING)
    yield engine
    engine.dispose()


def test_a_story_counts_what_the_log_holds(engine):
    shadowed(engine, (0.7, 0.9))
    hard = np.random.default_rng(0).random((400, 2))[:, 0]
    story = tell(engine, SETTING.experiment, num_points=0)
    assert story.evidence.units.challenger == story.evidence.units.champion == 400
    assert story.evidence.pairs is not None
    assert story.evidence.pairs.challenger_alone == ((hard >= 0.7) & (hard < 0.9)).sum()
    assert story.evidence.pairs.champion_alone == 0
    assert story.evidence.harms["slow"].challenger == 5
    assert story.evidence.harms["slow"].champion == 0


def test_what_was_believed_then_used_nothing_that_came_later(engine):
    shadowed(engine, (0.7, 0.9))
    moved(engine, 2, START + 400, State(stage=Stage.ABORTED, since=START + 400, why="enough"))
    story = tell(engine, SETTING.experiment, num_points=4)
    assert [point.estimate.count for point in story.points] == [100, 200, 300, 400]
    hard = np.random.default_rng(0).random((400, 2))[:, 0]
    won = ((hard >= 0.7) & (hard < 0.9)).cumsum()
    for point in story.points:
        count = point.estimate.count
        assert point.estimate.estimate == pytest.approx(won[count - 1] / count)


def test_a_clock_that_went_back_breaks_no_story(engine):
    moved(engine, 2, START - 500, State(stage=Stage.ABORTED, since=START - 500, why="it crashed"))
    assert document(tell(engine, SETTING.experiment, num_points=3))["why"] == "it crashed"


def test_an_end_stays_whatever_comes_in_later(engine):
    moved(engine, 2, START + 1, State(stage=Stage.ABORTED, since=START + 1, why="it crashed"))
    shadowed(engine, (0.7, 0.9))
    told = document(tell(engine, SETTING.experiment, num_points=0))
    assert (told["result"], told["why"]) == ("Failed", "it crashed")


def test_a_running_experiment_without_labels_is_inconclusive(engine):
    told = document(tell(engine, SETTING.experiment))
    assert (told["result"], told["stage"], told["estimate"]) == ("Inconclusive", "shadow", None)
    assert told["is_paused"]  # as /status of whoever serves it says, whose waiting is no move
    assert "Nothing yet" in page(tell(engine, SETTING.experiment))


def test_a_page_says_in_words_what_was_decided_and_why(engine):
    shadowed(engine, (0.7, 0.9))
    moved(engine, 2, START + 400, State(stage=Stage.DECIDED, since=START + 400, why="better"))
    text = page(tell(engine, SETTING.experiment))
    assert "the challenger may take over" in text
    assert "<svg" in text
    assert "://" not in text.replace("http://www.w3.org", "")


def test_a_challenger_that_is_no_worse_passes_by_its_interval_and_not_by_a_p_value(engine):
    shadowed(engine, (0.9, 0.9), count=1500)
    moved(engine, 2, START + 1500, State(stage=Stage.DECIDED, since=START + 1500, why="no worse"))
    told = document(tell(engine, SETTING.experiment, num_points=0))
    estimate = told["estimate"]
    assert told["result"] == "Successful"
    assert estimate["interval"][0] > -0.01
    assert estimate["p_value_of_no_difference"] == 1
    assert "above -0.01" in estimate["reading"]
    assert "is_enough" not in estimate


def test_one_row_of_each_unit_counts_in_pairs(engine):
    with LogWriter(engine) as writer:
        for at in range(50):
            request = new_id(START + at)
            for role, label in (("champion", 4), ("shadow", 3)):
                writer.put(
                    Prediction(
                        id=request if role == "champion" else new_id(START + at),
                        request=request,
                        model="digits",
                        version=1,
                        artefact_sha256="a" * 64,
                        role=role,
                        experiment=SETTING.experiment,
                        stage="shadow",
                        unit="one who asks all the time",
                        label=label,
                        latency_ms=1.0,
                        time=START + at,
                    )
                )
            writer_pause = Feedback(prediction=request, label=3, time=START + at)
            while not _kept(engine, writer_pause):
                pass
    story = tell(engine, SETTING.experiment, num_points=0)
    assert story.evidence.pairs is not None
    assert (story.evidence.pairs.count, story.evidence.pairs.challenger_alone) == (1, 1)


def _kept(engine: sa.Engine, feedback: Feedback) -> bool:
    return add_feedback(engine, feedback, grace_ms=1e15)


def test_an_unknown_experiment_is_named_with_its_nearest(engine):
    assert find(engine, None) == SETTING.experiment
    with pytest.raises(UserError, match=SETTING.experiment):
        find(engine, SETTING.experiment[:-1])


def test_the_verb_writes_both_and_prints_the_decision(engine, url, tmp_path, cli):
    shadowed(engine, (0.9, 0.6))
    ran = cli("experiment", f"log.url={url}", f"out={tmp_path}/out")
    assert ran.code == 3
    assert f"page: {tmp_path}/out/experiment.html" in ran.stderr
    printed = ran.document
    assert printed == json.loads((tmp_path / "out" / "decision.json").read_text())
    assert printed["verdict"] == "fail"
    assert (tmp_path / "out" / "experiment.html").is_file()


def test_a_log_that_is_not_there_is_said_and_not_made(tmp_path, cli):
    ran = cli("experiment", f"log.url=sqlite:///{tmp_path}/none.db")
    assert ran.code == 1
    assert "there is none" in ran.stderr
    assert not list(tmp_path.iterdir())
