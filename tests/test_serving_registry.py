"""The registry's changes reach the running service: no request is dropped, none is mixed up."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from registered import rollback
from registry_runs import ARTEFACT, Run, make_run, rewrite_json, weights
from served import running

from distill.errors import UserError
from distill.production.registry.place import fetch
from distill.production.serving.batcher import Batching
from distill.production.serving.catalogue import Catalogue, RegistrySource
from distill.production.serving.editions import Artefact, Loading
from distill.production.serving.log import MemoryLog
from distill.production.serving.recording import Recorder
from distill.production.serving.service import Service
from distill.production.serving.telemetry import Telemetry

PATIENCE_S = 60
PIXELS = np.array([[1, 2, 3, 4]], np.float32)
ENTRY = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}
BODY = {"inputs": [ENTRY]}


def registry_service(home):
    telemetry = Telemetry()
    loading = Loading(batching=Batching(), on_batch=telemetry.on_batch)
    return Service(
        catalogue=Catalogue.open(RegistrySource(place=home), loading),
        recorder=Recorder(log=MemoryLog()),
        telemetry=telemetry,
        deadline_ms=30_000.0,
        admin_token="token",
    )


def expected(seed):
    return (PIXELS @ weights(Run(seed=seed)))[0]


def reload(client):
    answer = client.post("/admin/reload", headers={"Authorization": "Bearer token"})
    assert answer.status_code == 200
    return answer.json()


def version_of(client):
    return client.get("/v2/health").json()["version"]


def wait_for_version(client, version):
    until = time.monotonic() + PATIENCE_S
    while version_of(client) != version and time.monotonic() < until:
        time.sleep(0.05)
    assert version_of(client) == version


@pytest.fixture
def two(home, register, promote):
    """Two versions, the first of which is in production."""
    register(seed=1)
    promote()
    register(seed=2)
    return home


def test_the_champion_answers_under_its_name_and_version(two):
    with running(registry_service(two)) as client:
        said = client.post("/v2/models/pets/infer", json=BODY).json()
        assert said["model_version"] == "1"
        np.testing.assert_allclose(said["outputs"][0]["data"], expected(1), rtol=1e-5)
        assert client.get("/v2/models/pets").json()["versions"] == ["1"]
        assert client.post("/v2/models/pets/versions/1/infer", json=BODY).status_code == 200
        assert client.post("/v2/models/pets/versions/2/infer", json=BODY).status_code == 404


def test_without_a_champion_there_is_nothing_to_serve(home, register):
    with pytest.raises(UserError, match="registry"):
        registry_service(home)
    register()
    with pytest.raises(UserError, match="champion"):
        registry_service(home)


def test_promotion_and_rollback_reach_the_service_without_a_dropped_request(two, promote):
    service = registry_service(two)
    done, answers = threading.Event(), []

    def ask(client):
        while not done.is_set():
            answer = client.post("/v2/models/pets/infer", json=BODY)
            answers.append((answer.status_code, answer.json()))

    with running(service) as client, ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(ask, client) for _ in range(4)]
        promote(version=2)
        wait_for_version(client, 2)
        promoted = len(answers)
        rollback(two)
        wait_for_version(client, 1)
        went_back = len(answers)
        while len(answers) < went_back + 100:
            time.sleep(0.01)
        done.set()
        for job in jobs:
            job.result()
        assert {status for status, _ in answers} == {200}
        versions = [said["model_version"] for _, said in answers]
        assert "1" in versions[:promoted]
        assert "2" in versions
        assert versions[-1] == "1"
        for _, said in answers:  # whoever says it is a version answers as that version
            of_version = expected(int(said["model_version"]))
            np.testing.assert_allclose(said["outputs"][0]["data"], of_version, rtol=1e-4)
        assert client.get("/status").json()["errors"] == {}


def test_the_version_before_stays_warm_and_the_ones_before_that_go(home, register, promote):
    for seed in (1, 2, 3):
        register(seed=seed)
    for version in (1, 2, 3):
        promote(version=version)
        if version == 1:
            service = registry_service(home)
    with running(service) as client:
        wait_for_version(client, 3)
        rollback(home)
        wait_for_version(client, 2)
        assert client.get("/v2/models/pets").json()["versions"] == ["3", "2"]
        said = client.post("/v2/models/pets/versions/3/infer", json=BODY).json()
        np.testing.assert_allclose(said["outputs"][0]["data"], expected(3), rtol=1e-5)


def test_a_request_ends_on_the_version_that_it_began_with(two, promote):
    service = registry_service(two)
    first = service.catalogue.current
    gate, begun = threading.Event(), threading.Event()
    run = first.batcher._run

    def slow(feeds):
        begun.set()
        assert gate.wait(PATIENCE_S)
        return run(feeds)

    first.batcher._run = slow
    with running(service) as client, ThreadPoolExecutor(1) as pool:
        job = pool.submit(client.post, "/v2/models/pets/infer", json=BODY)
        assert begun.wait(PATIENCE_S)
        promote(version=2)
        wait_for_version(client, 2)
        newer = client.post("/v2/models/pets/infer", json=BODY).json()
        gate.set()
        older = job.result().json()
    assert (older["model_version"], newer["model_version"]) == ("1", "2")
    np.testing.assert_allclose(older["outputs"][0]["data"], expected(1), rtol=1e-5)


def test_a_version_that_does_not_load_changes_nothing_and_is_named(two, promote):
    service = registry_service(two)
    with running(service) as client:
        fetch(two, 2)
        promote(version=2)
        wait_for_version(client, 2)
        rollback(two)
        wait_for_version(client, 1)
        intact = two.ledger_path.read_bytes()
        two.ledger_path.write_bytes(intact.replace(b'"version":2', b'"version":3'))
        assert reload(client)["changed"] is False
        health = client.get("/v2/health").json()
        assert (health["version"], health["ready"]) == (1, True)
        assert "damaged" in health["problem"]
        assert client.post("/v2/models/pets/infer", json=BODY).status_code == 200
        two.ledger_path.write_bytes(intact)
        assert reload(client)["problem"] is None


class Changing:
    """A source of which the test says what is in production."""

    def __init__(self, path):
        self.path = path

    def mark(self):
        return self.path

    def read(self):
        return Artefact(path=self.path, model="pets")


@pytest.mark.parametrize(
    ("kind", "why"),
    [("gone", "there is none"), ("truncated", "truncated"), ("other answers", "golden samples"),
     ("other contract", "carry the hash")],
)  # fmt: skip
def test_a_file_that_cannot_be_served_keeps_the_one_before(tmp_path, pets, kind, why):
    source = Changing(pets / ARTEFACT)
    catalogue = Catalogue.open(source, Loading())
    before = catalogue.current
    golden_error = 1.0 if kind == "other answers" else 0.0
    export = make_run(tmp_path / "run", Run(seed=5, golden_error=golden_error)) / "export"
    source.path = export / ARTEFACT
    if kind == "gone":
        source.path.unlink()
    if kind == "truncated":
        source.path.write_bytes(source.path.read_bytes()[:100])
    if kind == "other contract":
        rewrite_json(export / "contract.json", classes=["cat", "dog", "emu"])
    assert asyncio.run(catalogue.reload()) is False
    assert why in catalogue.problem
    assert catalogue.current is before
    source.path = pets / ARTEFACT
    assert asyncio.run(catalogue.reload()) is True
    assert catalogue.problem is None
    catalogue.close()


def test_what_was_fetched_once_needs_no_server(two):
    fetch(two, 1)
    (two.folder / "mlflow.db").unlink()
    with running(registry_service(two)) as client:
        assert version_of(client) == 1
    assert not (two.folder / "mlflow.db").exists()
