"""An experiment as clients, operators and rollout controllers see it: over HTTP."""

import time
from contextlib import contextmanager

import pytest
from served import ROW, make_service, make_table, running
from tried import QUICK, RIGHT, WRONG, variant

from distill.production.experiment.policy import Policy
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.routing.challenger import Limits
from distill.production.routing.conducting import Conducting
from distill.production.routing.conductor import Conductor
from distill.production.routing.doors import doors
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.serving.catalogue import FileSource
from distill.production.serving.editions import artefact_at
from distill.production.serving.log import KeptLog

pytestmark = pytest.mark.slow

ADMIN = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("champion"))


@contextmanager
def trying(folder, tmp_path, weights, policy=QUICK):
    engine = open_log(f"sqlite:///{tmp_path}/log.db")
    log = KeptLog(engine=engine, writer=LogWriter(engine, WriterOptions(flush_ms=5)))
    service = make_service(folder, log=log, admin_token="secret")
    router = service.router = TrialRouter(service.recorder)
    conductor = Conductor(
        router=router,
        mover=Mover(engine=engine),
        catalogue=service.catalogue,
        challengers=FileSource(artefact=artefact_at(variant(folder, weights), "pets")),
        policy=policy,
        conducting=Conducting(
            tick_seconds=0.05, slow_ms=20_000, deadline_ms=20_000, limits=Limits(hang_seconds=20)
        ),
    )
    service.beside = (conductor.run,)
    with running(service, more=doors(engine, router, "secret")) as client:
        until(client, lambda own: own is not None and own["is_ready"])
        yield client
    log.close()


def until(client, holds):
    """Wait for the experiment's status."""
    end = time.monotonic() + 60
    while not holds(own := client.get("/status").json()["experiment"]):
        assert time.monotonic() < end, own
        time.sleep(0.02)
    return own


def asked(client, unit):
    answer = client.post("/predict", json={"row": ROW, "unit": unit})
    assert answer.status_code == 200
    return answer.json()


def test_feedback_decides_about_a_shadow_and_everybody_can_read_it(folder, tmp_path):
    with trying(folder, tmp_path, WRONG) as client:
        for at in range(150):
            said = asked(client, f"unit {at}")
            assert said["label"] == "yes"
            told = {"prediction_id": said["prediction_id"], "label": "yes"}
            assert client.post("/feedback", json=told).status_code == 200
        own = until(client, lambda own: own["is_over"])
        assert own["stage"] == "aborted"
        (name,) = client.get("/experiments").json()["experiments"]
        metrics = client.get("/metrics").text.splitlines()
        assert f'distill_experiment_verdict{{experiment="{name}",verdict="fail"}} 1.0' in metrics
        assert f'distill_experiment_weight{{experiment="{name}"}} 0.0' in metrics
        assert any(
            "distill_experiment_info" in line and 'stage="aborted"' in line for line in metrics
        )
        assert any(line.startswith("distill_experiment_difference") for line in metrics)
        decision = client.get(f"/experiments/{name}/decision").json()
        assert (decision["result"], decision["weight"]) == ("Failed", 0)
        assert client.post(f"/experiments/{name}/gate").status_code == 409


def test_a_running_experiment_is_inconclusive_for_a_controller(folder, tmp_path):
    with trying(folder, tmp_path, RIGHT) as client:
        asked(client, "ann")
        (name,) = client.get("/experiments").json()["experiments"]
        decision = client.get(f"/experiments/{name}/decision").json()
        assert (decision["result"], decision["stage"]) == ("Inconclusive", "shadow")
        unknown = client.get("/experiments/none/decision")
        assert unknown.status_code == 404
        assert name in unknown.json()["error"]


def test_an_operator_sends_a_challenger_away_at_once(folder, tmp_path):
    policy = Policy(steps=(0.5,), starts_in_shadow=False)
    with trying(folder, tmp_path, WRONG, policy) as client:
        labels = {asked(client, f"unit {at}")["label"] for at in range(30)}
        assert labels == {"yes", "no"}
        name = client.get("/status").json()["experiment"]["name"]
        path = f"/admin/experiments/{name}/abort"
        assert client.post(path).status_code == 401
        assert client.post(path, headers=ADMIN).status_code == 200
        assert {asked(client, f"unit {at}")["label"] for at in range(30)} == {"yes"}
        own = until(client, lambda own: own["is_over"])
        assert "operator" in own["why"]
        assert client.post(path, headers=ADMIN).status_code == 404


def test_answers_say_who_gave_them(folder, tmp_path):
    policy = Policy(steps=(0.5,), starts_in_shadow=False)
    with trying(folder, tmp_path, WRONG, policy) as client:
        for at in range(20):
            asked(client, f"unit {at}")
        roles = client.get("/status").json()["roles"]
        assert roles["champion"] + roles["challenger"] == 20
        assert min(roles.values()) > 0


@pytest.mark.parametrize(
    ("asked_per_second", "rate", "least", "most"),
    [(1000, 50, 500, 511), (1000, None, 10_000, 10_000), (40, 50, 400, 400), (1, 0.1, 10, 12)],
)
def test_of_many_requests_a_shadow_gets_so_many_a_second(
    monkeypatch, asked_per_second, rate, least, most
):
    router, clock = TrialRouter(None), {"now": 100.0}
    monkeypatch.setattr("distill.production.routing.router.time.monotonic", lambda: clock["now"])
    num_asked = 0
    for request in range(10 * asked_per_second):  # ten seconds
        clock["now"] = 100.0 + request / asked_per_second
        num_asked += router._is_paced(rate)
    assert least <= num_asked <= most
