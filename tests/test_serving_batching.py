"""Micro-batching: what runs together, what waits, what is refused, and that nothing is lost."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper
from served import make_echo, make_service, running, with_run, write_onnx

from distill.errors import UserError
from distill.production.serving.batcher import Batcher, Batching
from distill.production.serving.editions import Loading, artefact_at, load
from distill.production.serving.refusals import RefusedError
from distill.runtime import ModelError

INFER = "/v2/models/pets/infer"
PATIENCE_S = 60


def feeds(*values):
    return {"x": np.array(values, np.float64)[:, None]}


class Model:
    """Doubles what it is given once it is let; remembers the sizes of its batches."""

    def __init__(self, is_open=True):
        self.sizes, self.gate = [], threading.Event()
        if is_open:
            self.gate.set()

    def __call__(self, given):
        self.sizes.append(len(given["x"]))
        assert self.gate.wait(PATIENCE_S)
        if (given["x"] < 0).any():
            raise ValueError("it takes no negative numbers\nat all")
        return [given["x"] * 2]


def ask(batcher, jobs, *, then=lambda: None, deadline_s=PATIENCE_S):
    """Submit all at once; give back answers or refusals in order."""

    async def main():
        deadline = time.monotonic() + deadline_s
        tasks = [
            asyncio.ensure_future(batcher.submit(own, len(own["x"]), deadline=deadline))
            for own in jobs
        ]
        await asyncio.sleep(0)  # all of them are in the queue, or refused
        then()
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        return asyncio.run(main())
    finally:
        batcher.close()
        assert batcher.join(PATIENCE_S)


def wait_until(holds):
    until = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < until:
        time.sleep(0.001)
    assert holds()


def test_what_waits_while_the_model_is_busy_goes_together():
    model = Model(is_open=False)

    def then():
        wait_until(lambda: model.sizes)
        model.gate.set()

    answers = ask(Batcher(model, Batching(max_size=8)), [feeds(i) for i in range(20)], then=then)
    assert [a[0].item() for a in answers] == [2 * i for i in range(20)]
    assert sum(model.sizes) == 20
    assert max(model.sizes) == 8
    assert len(model.sizes) <= 4


def test_requests_of_several_rows_keep_their_rows_and_no_batch_is_too_large():
    model = Model(is_open=False)
    jobs = [feeds(*range(n)) for n in (1, 3, 2, 5, 4, 9, 1)]

    def then():
        wait_until(lambda: model.sizes)
        model.gate.set()

    answers = ask(Batcher(model, Batching(max_size=5)), jobs, then=then)
    for job, (answer,) in zip(jobs, answers, strict=True):
        np.testing.assert_array_equal(answer, job["x"] * 2)
    assert all(size <= 5 or size == 9 for size in model.sizes)  # a larger request runs alone


def test_a_batch_waits_for_others_no_longer_than_it_may():
    model = Model()
    batching = Batching(max_size=2, max_delay_ms=PATIENCE_S * 1000)
    answers = ask(Batcher(model, batching), [feeds(1), feeds(2)])
    assert [a[0].item() for a in answers] == [2, 4]
    assert model.sizes == [2]  # the second ended the wait
    alone = Model()
    ask(Batcher(alone, Batching(max_size=2, max_delay_ms=1)), [feeds(1)])
    assert alone.sizes == [1]


def test_requests_of_other_shapes_are_not_mixed():
    sizes = []

    def run(given):
        sizes.append(given["x"].shape)
        return [given["x"]]

    jobs = [{"x": np.zeros((1, width))} for width in (1, 2, 2, 1)]
    answers = ask(Batcher(run, Batching()), jobs)
    assert [a[0].shape for a in answers] == [(1, 1), (1, 2), (1, 2), (1, 1)]


def test_a_bad_request_harms_no_neighbour_and_no_worker():
    model = Model(is_open=False)

    def then():
        wait_until(lambda: model.sizes)
        model.gate.set()

    jobs = [feeds(i) for i in (1, 2, -3, 4)]
    answers = ask(Batcher(model, Batching()), jobs, then=then)
    refused = answers.pop(2)
    assert [a[0].item() for a in answers] == [2, 4, 8]
    assert isinstance(refused, RefusedError)
    assert refused.status == 422
    assert refused.message.endswith("it fails: it takes no negative numbers")


def test_a_full_queue_refuses_at_once():
    model = Model(is_open=False)
    answers = ask(
        Batcher(model, Batching(max_waiting=3)), [feeds(i) for i in range(10)], then=model.gate.set
    )
    refused = [a for a in answers if isinstance(a, RefusedError)]
    assert len(refused) == 7
    assert {(r.status, r.retry_after_s) for r in refused} == {(503, 1)}
    assert len([a for a in answers if not isinstance(a, RefusedError)]) == 3


@pytest.mark.slow
def test_late_answers_are_504_and_what_is_late_is_not_run():
    model = Model(is_open=False)
    batcher = Batcher(model, Batching(max_size=1))
    threading.Timer(1.0, model.gate.set).start()
    answers = ask(batcher, [feeds(1), feeds(2), feeds(3)], deadline_s=0.2)
    assert [a.status for a in answers] == [504, 504, 504]
    assert len(model.sizes) == 1


def test_a_closed_batcher_answers_what_waited():
    model = Model(is_open=False)
    batcher = Batcher(model, Batching(max_size=2))

    def then():
        batcher.close()
        model.gate.set()

    answers = ask(batcher, [feeds(i) for i in range(7)], then=then)
    assert [a[0].item() for a in answers] == [2 * i for i in range(7)]


@pytest.mark.slow
def test_overload_and_lateness_are_said_in_the_protocols_form(tmp_path):
    path = make_echo(tmp_path / "echo.onnx", ("FP64",))
    gate = threading.Event()

    def run(given):
        assert gate.wait(PATIENCE_S)
        return [given["in_FP64"]]

    service = with_run(
        make_service(path, deadline_ms=300), run, Batching(max_size=1, max_waiting=2)
    )
    entry = {"name": "in_FP64", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]}
    with running(service) as client, ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(client.post, INFER, json={"inputs": [entry]}) for _ in range(8)]
        answers = [job.result() for job in jobs]
        assert sorted(a.status_code for a in answers) == [503] * 6 + [504] * 2
        assert all(set(a.json()) == {"error"} for a in answers)
        refused = next(a for a in answers if a.status_code == 503)
        assert refused.headers["retry-after"] == "1"
        assert client.get("/v2/health/live").status_code == 200  # the loop is not blocked
        gate.set()
        wait_until(lambda: service.catalogue.current.batcher.waiting == 0)
        assert client.post(INFER, json={"inputs": [entry]}).status_code == 200
        assert client.get("/status").json()["errors"] == {"overload": 6, "timeout": 2}


def test_answers_under_load_are_those_of_the_model_alone(pets):
    service = make_service(pets)
    with running(service) as client:

        def one(number):
            pixels = [number % 256, number // 256, 1, 2]
            entry = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": pixels}
            said = client.post(INFER, json={"id": str(number), "inputs": [entry]}).json()
            return said["id"], said["outputs"][0]["data"]

        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(one, range(600)))
        for number in range(0, 600, 50):
            alone_id, alone = one(number)
            assert together[number][0] == alone_id == str(number)
            np.testing.assert_allclose(together[number][1], alone, rtol=1e-5)
        text = client.get("/metrics").text
    (rows,) = (v for v in text.splitlines() if v.startswith("distill_batch_rows_sum"))
    assert float(rows.split()[1]) == 612


def test_a_file_of_one_size_is_run_one_by_one_and_takes_that_size_alone(tmp_path):
    path = write_onnx(
        tmp_path / "fixed.onnx",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        [("x", TensorProto.FLOAT, [2, 3])],
        [("y", TensorProto.FLOAT, [2, 3])],
        constants={"two": np.float32(2)},
    )
    service = make_service(path)
    assert service.catalogue.current.note == "the file takes one size alone"
    with running(service) as client:
        entry = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": list(range(6))}
        said = client.post(INFER, json={"inputs": [entry]}).json()
        assert said["outputs"][0]["data"] == [0, 2, 4, 6, 8, 10]
        entry |= {"shape": [1, 3], "data": [1, 2, 3]}
        answer = client.post(INFER, json={"inputs": [entry]})
        assert answer.status_code == 400
        assert "[2, 3]" in answer.json()["error"]


@pytest.mark.parametrize("kind", ["mean over the batch", "quantised as it runs"])
def test_a_model_whose_rows_depend_on_each_other_is_run_one_by_one(tmp_path, kind):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    if kind != "mean over the batch":  # one scale for all rows, from the largest of them
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ]
    path = write_onnx(
        tmp_path / "model.onnx",
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["batch", 3])],
    )
    edition = load(artefact_at(path), Loading())
    assert edition.note == "an answer depends on what else is in the batch"
    edition.batcher.close()


def test_a_failing_model_is_422_and_goes_on(tmp_path):
    path = write_onnx(
        tmp_path / "gather.onnx",
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [("x", TensorProto.INT64, ["batch"])],
        [("y", TensorProto.FLOAT, ["batch"])],
        constants={"table": np.arange(5, dtype=np.float32)},
    )
    with running(make_service(path)) as client:

        def post(*values):
            entry = {"name": "x", "datatype": "INT64", "shape": [len(values)], "data": values}
            return client.post(INFER, json={"inputs": [entry]})

        assert post(99).status_code == 422
        assert set(post(99).json()) == {"error"}
        assert post(1, 4).json()["outputs"][0]["data"] == [1, 4]


def test_an_answer_that_is_no_number_is_422_of_a_model_with_a_contract(pets):
    def run(given):
        return [np.full((len(given["image"]), 3), np.nan, np.float32)]

    with running(with_run(make_service(pets), run)) as client:
        entry = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1] * 4}
        answer = client.post(INFER, content=json.dumps({"inputs": [entry]}))
        assert answer.status_code == 422
        assert "finite" in answer.json()["error"]


def test_a_bare_models_nan_is_null_in_json(tmp_path):
    path = make_echo(tmp_path / "echo.onnx", ("FP32",))

    def run(given):
        return [np.full_like(given["in_FP32"], np.nan)]

    with running(with_run(make_service(path), run)) as client:
        entry = {"name": "in_FP32", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
        said = client.post(INFER, json={"inputs": [entry]}).json()
        assert said["outputs"][0]["data"] == [None] * 3


def test_a_file_that_is_none_is_refused_at_the_start(tmp_path, pets):
    whole = (pets / "model.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[:200])
    with pytest.raises(ModelError, match="truncated"):
        load(artefact_at(tmp_path / "half.onnx"), Loading())
    (tmp_path / "model.onnx").write_bytes(whole)  # it carries a hash, but its contract is gone
    with pytest.raises(UserError, match="contract"):
        load(artefact_at(tmp_path), Loading())
    (tmp_path / "model.onnx").rename(tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"found half\.onnx, other\.onnx"):
        artefact_at(tmp_path)
    with pytest.raises(UserError, match="there is none"):
        artefact_at(tmp_path / "nope.onnx")
