import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from distill.production.routing.challenger import Challenger, ChallengerError, Limits
from distill.production.routing.frames import PREFIX_BYTES, Prefix, pack, unpack
from distill.runtime import OnnxModel

LONG = 60.0  # seconds that nothing here should need


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model that answers [x, 1 / x], and fails where x is 99: there is no such row."""
    nodes = [
        helper.make_node("Cast", ["x"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "at"], ["one"]),
        helper.make_node("Div", ["one", "x"], ["inverse"]),
        helper.make_node("Concat", ["x", "inverse"], ["y"], axis=1),
    ]
    table = helper.make_tensor("table", TensorProto.FLOAT, [50], [1.0] * 50)
    graph = helper.make_graph(
        nodes,
        "challenger",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


async def answer(challenger: Challenger, *values: float) -> list[list[float]]:
    return (await challenger.ask(rows(*values), LONG))["y"].tolist()


def with_challenger(
    path: Path, use: Callable[[Challenger], Awaitable[None]], limits: Limits | None = None
) -> None:
    async def main() -> None:
        challenger = Challenger(path, limits)
        await challenger.start()
        try:
            await use(challenger)
        finally:
            await challenger.stop()
        assert challenger.pid is None

    asyncio.run(main())


async def refused(
    challenger: Challenger, inputs: dict[str, np.ndarray], seconds: float = LONG
) -> str:
    with pytest.raises(ChallengerError) as caught:
        await challenger.ask(inputs, seconds)
    return caught.value.kind


async def comes_back(challenger: Challenger, starts: int) -> None:
    async with asyncio.timeout(LONG):
        while challenger.num_starts < starts or not challenger.is_ready:
            await asyncio.sleep(0.01)
    assert await answer(challenger, 2) == [[2, 0.5]]


def test_answers_are_those_of_the_file_also_when_many_ask_at_once(path):
    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        asked = [rows(i + 1, i + 2) for i in range(40)]
        answers = await asyncio.gather(*(challenger.ask(one, LONG) for one in asked))
        model = OnnxModel(path)
        for one, answer in zip(asked, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], model.predict(one["x"]))

    with_challenger(path, use)


def test_nonsense_and_exceptions_are_errors_of_their_own_request_alone(path):
    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        good, nan, bad = await asyncio.gather(
            answer(challenger, 4),
            refused(challenger, rows(0)),
            refused(challenger, rows(99)),
        )
        assert good == [[4, 0.25]]
        assert (nan, bad) == ("error", "error")
        assert await refused(challenger, {"x": np.zeros((1, 7), np.float32)}) == "error"
        assert challenger.num_starts == 1

    with_challenger(path, use)


def test_a_killed_process_fails_who_waits_and_comes_back(path):
    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        assert challenger.pid is not None
        os.kill(challenger.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(refused(challenger, rows(1)))
        await asyncio.sleep(0.05)
        os.kill(challenger.pid, signal.SIGKILL)
        assert await waiting == "crash"
        await comes_back(challenger, starts=2)

    with_challenger(path, use)


@pytest.mark.slow
def test_a_frozen_process_is_late_then_busy_then_ended_and_comes_back(path):
    limits = Limits(hang_seconds=1.0, max_in_flight=3)

    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        assert challenger.pid is not None
        os.kill(challenger.pid, signal.SIGSTOP)
        kinds = [await refused(challenger, rows(1), 0.01) for _ in range(4)]
        assert kinds == ["timeout", "timeout", "timeout", "busy"]
        await comes_back(challenger, starts=2)
        assert "did not answer" in str(challenger.last_error)

    with_challenger(path, use, limits)


def test_a_frozen_process_is_asked_no_more_than_so_many_bytes_at_once(path):
    limits = Limits(hang_seconds=LONG, max_in_flight_bytes=10_000)
    large = {"x": np.ones((1_500, 1), np.float32)}  # 6,000 bytes

    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        assert challenger.pid is not None
        alone = {"x": np.ones((5_000, 1), np.float32)}
        assert len((await challenger.ask(alone, LONG))["y"]) == 5_000
        os.kill(challenger.pid, signal.SIGSTOP)
        kinds = [await refused(challenger, large, 0.01), await refused(challenger, large, 0.01)]
        kinds.append(await refused(challenger, rows(1), 0.01))
        assert kinds == ["timeout", "busy", "timeout"]
        os.kill(challenger.pid, signal.SIGCONT)
        async with asyncio.timeout(LONG):
            while challenger._waiting:
                await asyncio.sleep(0.01)
        assert len((await challenger.ask(large, LONG))["y"]) == 1_500

    with_challenger(path, use, limits)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_process_that_takes_too_much_memory_is_ended(path):
    async def use(challenger: Challenger) -> None:
        async with asyncio.timeout(LONG):
            while challenger.num_starts < 2:
                await asyncio.sleep(0.01)
        assert "memory" in str(challenger.last_error)

    with_challenger(path, use, Limits(max_rss_bytes=1 << 20))


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_file_that_does_not_load_is_said_and_never_ready(tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)

    async def use(challenger: Challenger) -> None:
        async with asyncio.timeout(LONG):
            while challenger.last_error is None:
                await asyncio.sleep(0.01)
        assert str(path) in challenger.last_error
        assert await refused(challenger, rows(1)) == "crash"

    with_challenger(path, use)


def test_the_process_imports_no_torch_and_does_not_outlive_the_service(path):
    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        maps = Path(f"/proc/{challenger.pid}/maps")
        if maps.is_file():
            assert "torch" not in maps.read_text()

    with_challenger(path, use)


def test_a_frame_gives_back_the_arrays_that_it_was_given():
    arrays = {
        "numbers": np.array([[1.5], [2]], np.float32),
        "none": np.zeros((0, 3), np.uint8),
        "names": np.array([["ä"], ["longer"]]),
        "one": np.array(7, np.int64),
    }
    given = {**arrays, "objects": arrays["names"].astype(object)}
    data = pack(7, {"fact": 1}, given)
    prefix = Prefix.parse(data[:PREFIX_BYTES])
    end = PREFIX_BYTES + prefix.header_bytes
    facts, found = unpack(data[PREFIX_BYTES:end], data[end:])
    assert (prefix.number, facts, prefix.body_bytes) == (7, {"fact": 1}, len(data) - end)
    for name, array in {**arrays, "objects": arrays["names"]}.items():
        assert found[name].dtype == (object if array.dtype.kind == "U" else array.dtype)
        np.testing.assert_array_equal(found[name], array)


def test_a_long_text_takes_no_room_in_its_neighbours():
    texts = np.array([["x" * 1_000_000], *[["y"]] * 999], object)
    data = pack(7, {}, {"names": texts})
    assert len(data) < 1_020_000
    end = PREFIX_BYTES + Prefix.parse(data[:PREFIX_BYTES]).header_bytes
    np.testing.assert_array_equal(unpack(data[PREFIX_BYTES:end], data[end:])[1]["names"], texts)


def test_a_frame_of_objects_or_of_nonsense_lengths_is_refused():
    for code in ("|O", "|V8", "<U2"):
        with pytest.raises(ValueError, match="a frame of"):
            unpack(b'{"arrays": [["x", "%s", [1]]]}' % code.encode(), b"\0" * 8)
    with pytest.raises(ValueError, match="a frame of 8 bytes for 17"):
        unpack(b'{"arrays": [["x", "text", [1]]]}', b"\x09" + b"\0" * 7)
    with pytest.raises(ValueError, match="bytes"):
        Prefix.parse(b"\xff" * PREFIX_BYTES)


def test_whoever_finishes_answers_what_was_asked_and_waits_for_nothing_that_hangs(path):
    async def use(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        asked = [asyncio.create_task(answer(challenger, 2.0)) for _ in range(20)]
        await asyncio.sleep(0)
        await challenger.finish(LONG)
        assert await asyncio.gather(*asked) == [[[2.0, 0.5]]] * 20
        assert challenger.pid is None

    async def hangs(challenger: Challenger) -> None:
        assert await challenger.ready(LONG)
        assert challenger.pid is not None
        os.kill(challenger.pid, signal.SIGSTOP)
        asked = asyncio.create_task(refused(challenger, rows(2.0)))
        await asyncio.sleep(0)
        await challenger.finish(0.05)
        assert await asked == "crash"

    with_challenger(path, use)
    with_challenger(path, hangs, Limits(hang_seconds=LONG))
