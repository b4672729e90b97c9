"""The service and its prediction log on a database: what is answered is kept, and joined."""

import asyncio
import contextlib
import io
import json
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from prediction_logs import count, prediction, write
from served import ROW, make_service, running

from distill.production.prediction_log import retention
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.privacy import Privacy
from distill.production.prediction_log.reader import find, skews, stream
from distill.production.prediction_log.retention import purge
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.serving.background import Background
from distill.production.serving.exchange import SingleRouter
from distill.production.serving.guard import Limits
from distill.production.serving.log import KeptLog
from distill.production.serving.refusals import RefusedError
from distill.production.serving.service import Asker
from distill.production.serving.signature import Checked

INFER = "/v2/models/pets/infer"
PATIENCE_S = 60


def image(*rows):
    data = [pixel for row in rows for pixel in row]
    return {"name": "image", "datatype": "UINT8", "shape": [len(rows), 2, 2, 1], "data": data}


def kept_log(folder, *, retention_days=None, **options):
    engine = open_log(f"sqlite:///{folder}/log.db", sync=options.get("sync", False))
    writer = LogWriter(engine, WriterOptions(**options))
    return KeptLog(engine=engine, writer=writer, retention_days=retention_days)


def everything(folder):
    engine = open_log(f"sqlite:///{folder}/log.db")
    try:
        return list(stream(engine)), skews(engine)
    finally:
        engine.dispose()


@pytest.mark.parametrize("sync", [False, True])
def test_every_row_that_is_answered_is_in_the_log(pets, tmp_path, sync):
    log = kept_log(tmp_path, sync=sync)
    rows = [(1, 2, 3, 4), (5, 6, 7, 8)]
    with running(make_service(pets, log=log)) as client:
        body = {"inputs": [image(*rows)], "parameters": {"unit": "ann"}}
        said = client.post(INFER, json=body).json()
        if sync:  # it is there before it is answered
            assert len(everything(tmp_path)[0]) == 2
    log.close()
    logged, _ = everything(tmp_path)
    ids = said["parameters"]["prediction_ids"].split(",")
    assert [own.prediction.id for own in logged] == sorted(ids)
    answers = np.reshape(said["outputs"][0]["data"], (2, 3))
    by_id = {own.prediction.id: own.prediction for own in logged}
    for one, pixels, logits in zip(ids, rows, answers, strict=True):
        kept = by_id[one]
        assert kept.request == one
        assert (kept.unit, kept.role, kept.outcome, kept.model) == ("ann", "champion", "ok", "pets")
        assert np.load(io.BytesIO(kept.input)).ravel().tolist() == list(pixels)
        np.testing.assert_allclose(np.frombuffer(kept.output, "<f4"), logits, rtol=1e-6)
        assert kept.label == logits.argmax()
        assert kept.latency_ms > 0


def test_many_rows_at_once_are_all_kept(pets, tmp_path):
    log = kept_log(tmp_path)
    with running(make_service(pets, log=log)) as client:
        rows = [(i % 256, i // 256, 0, 0) for i in range(500)]
        assert client.post(INFER, json={"inputs": [image(*rows)]}).status_code == 200
    log.close()
    assert len(everything(tmp_path)[0]) == 500


@pytest.mark.parametrize("deadline_ms", [30_000.0, 1e-6], ids=["answered", "too late"])
def test_many_rows_at_once_keep_nobody_waiting_while_they_are_recorded(pets, tmp_path, deadline_ms):
    log = kept_log(tmp_path)
    service = make_service(pets, log=log, deadline_ms=deadline_ms)
    threads, put = set(), log.writer.put
    log.writer.put = lambda record: threads.add(threading.get_ident()) or put(record)

    async def main():
        feeds = {"image": np.zeros((500, 2, 2, 1), np.uint8)}
        asker = Asker(endpoint="infer", started=time.perf_counter())
        checked = Checked(feeds=feeds, num_rows=500)
        with contextlib.suppress(RefusedError):
            await service.ask(service.catalogue.current, checked, asker)

    asyncio.run(main())
    assert threads
    assert threading.get_ident() not in threads
    log.close()
    logged, _ = everything(tmp_path)
    assert [one.prediction.outcome for one in logged] == [
        "ok" if deadline_ms > 1 else "timeout"
    ] * 500


def test_more_rows_than_the_log_could_take_are_refused_before_they_are_answered(pets, tmp_path):
    log = kept_log(tmp_path)
    with running(make_service(pets, log=log, max_rows=3)) as client:
        full = client.post(INFER, json={"inputs": [image(*[(1, 2, 3, 4)] * 3)]})
        more = client.post(INFER, json={"inputs": [image(*[(1, 2, 3, 4)] * 4)]})
    log.close()
    assert (full.status_code, more.status_code) == (200, 413)
    assert "at most 3 rows but got 4" in more.json()["error"]
    assert len(everything(tmp_path)[0]) == 3


def test_an_answer_and_its_shadow_of_as_many_rows_as_may_come_fit_into_the_log():
    assert 2 * Limits().max_rows <= WriterOptions().capacity


def test_the_truth_may_follow_at_once(pets, tmp_path):
    log = kept_log(tmp_path, flush_ms=300)
    with running(make_service(pets, log=log)) as client:
        said = client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]}).json()
        one = said["parameters"]["prediction_id"]
        news = {"prediction_id": one, "label": "owl", "outcome": {"click": 1}}
        assert client.post("/feedback", json=news).json()["kept"] == 2
        assert client.post("/feedback", json=news).json()["known_before"] is True
        other = client.post("/feedback", json={"prediction_id": one, "label": "cat"})
        assert other.status_code == 409
        unknown = {"prediction_id": "0" * 30, "label": "cat"}
        assert client.post("/feedback", json=unknown).status_code == 404
    found = {own.name: own for own in find(log.engine, one).feedback}
    assert found["label"].label == 2
    assert found["click"].value == 1.0
    log.close()


def test_what_gets_no_answer_is_kept_with_the_reason(pets, tmp_path):
    log = kept_log(tmp_path)
    service = make_service(pets, log=log, deadline_ms=1e-6)
    with running(service) as client:
        assert client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]}).status_code == 504
    log.close()
    ((logged,), _) = everything(tmp_path)
    assert logged.prediction.outcome == "timeout"
    assert "deadline" in logged.prediction.detail


def test_skew_is_written_in_sums(people_table, tmp_path):
    log = kept_log(tmp_path)
    with running(make_service(people_table, log=log)) as client:
        for city in ("Atlantis", "Utopia", "Oslo"):
            client.post("/predict", json={"row": ROW | {"city": city}})
        client.post("/predict", json={"row": {"age": 1}})
    log.close()
    _, counted = everything(tmp_path)
    assert {(own.kind, own.column): own.count for own in counted} == {
        ("category", "city"): 2,
    }  # fmt: skip


def test_dropped_inputs_are_not_on_the_disk(people_table, tmp_path):
    log = kept_log(tmp_path, privacy=Privacy(inputs="drop", units="hash"))
    row = ROW | {"city": "a-secret-city"}
    with running(make_service(people_table, log=log)) as client:
        body = {"row": row, "unit": "a-secret-unit"}
        assert client.post("/predict", json=body).status_code == 200
    log.close()
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a-secret" not in on_disk
    assert len(everything(tmp_path)[0]) == 1


def test_a_log_that_is_gone_costs_no_answer_and_is_reported(pets, tmp_path):
    log = kept_log(tmp_path, flush_ms=1)
    with running(make_service(pets, log=log)) as client:
        assert client.get("/v2/health").json()["log_problem"] is None
        for path in tmp_path.iterdir():
            path.unlink()
        assert client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]}).status_code == 200
        until = time.monotonic() + PATIENCE_S
        while client.get("/v2/health").json()["log_problem"] is None:
            assert time.monotonic() < until
        assert client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]}).status_code == 200
        answer = client.post("/feedback", json={"prediction_id": "0" * 30, "label": "owl"})
        assert answer.status_code in (404, 503)
    log.writer.close(0.2)
    log.engine.dispose()


def test_under_sync_an_answer_that_cannot_be_kept_is_not_given(pets, tmp_path):
    log = kept_log(tmp_path, sync=True, capacity_bytes=1)
    with running(make_service(pets, log=log)) as client:
        answer = client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]})
        assert answer.status_code == 503
        assert set(answer.json()) == {"error"}
    log.close()


def test_what_is_too_old_goes_when_the_service_starts(pets, tmp_path):
    log = kept_log(tmp_path)
    with running(make_service(pets, log=log)) as client:
        assert client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]}).status_code == 200
    log.close()
    log = kept_log(tmp_path, retention_days=0)
    with running(make_service(pets, log=log)):
        until = time.monotonic() + PATIENCE_S
        while everything(tmp_path)[0]:
            assert time.monotonic() < until
            time.sleep(0.05)
    log.close()


def test_a_service_that_ends_leaves_the_rest_of_what_is_too_old(pets, tmp_path, monkeypatch):
    log = kept_log(tmp_path, retention_days=1)
    write(log.engine, *(prediction(time=1.0) for _ in range(20)))
    begun, ended = threading.Event(), threading.Event()
    delete = retention._delete

    def one_row(engine, query):
        begun.set()
        assert ended.wait(PATIENCE_S)
        return delete(engine, query)

    monkeypatch.setattr(retention, "_delete", one_row)
    monkeypatch.setattr("distill.production.serving.log.purge", partial(purge, batch=1, pause_s=0))

    async def main():
        async with Background(make_service(pets, log=log)):
            assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        ended.set()

    asyncio.run(main())  # which waits for its threads
    assert count(log.engine) == 19
    log.close()


def test_columns_are_kept_by_name(people_table, tmp_path):
    log = kept_log(tmp_path)
    with running(make_service(people_table, log=log)) as client:
        assert client.post("/predict", json={"rows": [ROW, ROW | {"age": 7}]}).status_code == 200
    log.close()
    logged, _ = everything(tmp_path)
    ages = sorted(json.loads(own.prediction.input)["age"][0] for own in logged)
    assert ages == [7.0, 40.0]


class Falling:
    """A router of which every answer comes from the older model, as part of an experiment."""

    async def route(self, request):
        answer = await SingleRouter().route(request)
        return replace(answer, role="fallback", experiment="e1", stage="canary 5", version=7)

    def status(self):
        return None


def test_whoever_answers_by_the_router_is_who_is_kept_named_and_counted(pets, tmp_path):
    log = kept_log(tmp_path)
    with running(make_service(pets, log=log, router=Falling())) as client:
        said = client.post(INFER, json={"inputs": [image((1, 2, 3, 4))]}).json()
        assert said["model_version"] == "7"
        assert client.get("/status").json()["fallbacks"] == 1
        assert 'distill_answers_total{role="fallback"} 1.0' in client.get("/metrics").text
    log.close()
    ((logged,), _) = everything(tmp_path)
    kept = logged.prediction
    assert (kept.role, kept.experiment, kept.stage, kept.version) == (
        "fallback", "e1", "canary 5", 7,
    )  # fmt: skip
