"""The timer: how long models take, contenders interleaved in shuffled rounds.

Nothing but the model runs between two readings of the clock; every nanosecond is kept.
"""

import gc
import random
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

Model = Callable[[Any], Any]

UNTIMED_AFTER_SWITCH = 3  # the other contenders' data is in the caches
WARM_UP_CALLS = 20
MAX_LEAD_IN = 1600  # arrivals: what it takes at 95 % utilisation
WARM_UP_SECONDS, LONGEST_WARM_UP_SECONDS = 0.3, 10.0  # at least, at most


class Scenario(NamedTuple):
    """How requests arrive (MLPerf Inference's scenarios: Reddi et al., 2020).

    Attributes:
        name: single_stream, server or offline, for reports.
        batch_size: samples in a call.
        rate_per_second: None: the next call when the last is done. A number: calls arrive by
            chance at this rate (Poisson), whether or not the last is done, and latency counts from
            when they were due, so that a stall is charged to all who waited.
    """

    name: str = "single_stream"
    batch_size: int = 1
    rate_per_second: Optional[float] = None

    def time_calls(
        self, model: Model, rotation: "Rotation", out: np.ndarray, lead_in: int = 0
    ) -> None:
        """Time calls on ever other inputs into `out`, nanoseconds.

        Args:
            model: called.
            rotation: of its inputs.
            out: filled.
            lead_in: arrivals before the first that is timed: a queue starts empty.
        """
        if self.rate_per_second is None:
            _time_closed(model, rotation, out)
        else:
            gaps, count = rotation.rng.expovariate, lead_in + len(out)
            due = np.cumsum([gaps(self.rate_per_second) for _ in range(count)]) * 1e9
            taken = np.zeros(count, np.int64)
            _time_open(model, rotation, due.astype(np.int64).tolist(), taken)
            out[:] = taken[lead_in:]

    def utilisation(self, model: Model, rotation: "Rotation") -> Optional[float]:
        """Say how busy arrivals keep the model: 1 and more is more than it can serve."""
        if self.rate_per_second is None:
            return None
        taken = np.zeros(WARM_UP_CALLS, np.int64)
        _time_closed(model, rotation, taken)
        return self.rate_per_second * float(taken.mean()) / 1e9


def lead_in(utilisation: Optional[float]) -> int:
    """Say how many arrivals it takes until a queue has forgotten that it started empty.

    About 1 / (1 - utilisation)^2 services (the relaxation time of a queue with one server); four
    of them, at most `MAX_LEAD_IN`: a fuller queue is not in a steady state anyhow.
    """
    if utilisation is None:
        return 0
    idle = max(1 - utilisation, 1e-9)
    return min(MAX_LEAD_IN, int(4 / idle**2))


class Rotation:
    """Batches to run through in turn: the same input every time is 5 % optimistic.

    Args:
        inputs: samples, [K, ...].
        batch_size: of a call; batches overlap where there are few samples.
        seed: of the arrivals of an open loop.
        prepared: lays a batch out as the model takes it, before the clock starts.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        batch_size: int,
        seed: int,
        prepared: Callable[[np.ndarray], Any] = lambda batch: batch,
    ) -> None:
        count = len(inputs)
        order = np.arange(count)
        self.batches = [
            prepared(
                np.ascontiguousarray(inputs[np.take(order, range(i, i + batch_size), mode="wrap")])
            )
            for i in range(0, count, max(1, min(batch_size, count // 8)))
        ]
        self.position = 0
        self.rng = random.Random(seed)

    def take(self, count: int) -> List[Any]:
        """Return the next batches."""
        start, size = self.position, len(self.batches)
        self.position = (start + count) % size
        return [self.batches[(start + i) % size] for i in range(count)]


def _time_closed(model: Model, rotation: Rotation, out: np.ndarray) -> None:
    clock = time.perf_counter_ns
    for i, batch in enumerate(rotation.take(len(out))):
        start = clock()
        model(batch)
        out[i] = clock() - start


def _time_open(model: Model, rotation: Rotation, due: List[int], out: np.ndarray) -> None:
    clock, sleep = time.perf_counter_ns, time.sleep
    batches = rotation.take(len(out))
    start = clock()
    for i, batch in enumerate(batches):
        arrival = start + due[i]
        early = arrival - 200_000 - clock()
        if early > 0:
            sleep(early / 1e9)
        while clock() < arrival:
            pass
        model(batch)
        out[i] = clock() - arrival


def warm_up(model: Model, rotation: Rotation, seconds: float = WARM_UP_SECONDS) -> int:
    """Call until the median of 20 calls no longer falls by more than 2 %; return the calls made.

    Args:
        model: what is called.
        rotation: the inputs.
        seconds: at least.
    """
    taken = np.zeros(WARM_UP_CALLS, np.int64)
    most = max(seconds, LONGEST_WARM_UP_SECONDS)
    start, best = time.perf_counter(), float("inf")
    calls = stable = 0
    while time.perf_counter() - start < most:
        _time_closed(model, rotation, taken)
        calls += len(taken)
        median = float(np.median(taken))
        stable = stable + 1 if median > 0.98 * best else 0
        best = min(best, median)
        if stable >= 3 and time.perf_counter() - start > seconds:
            break
    return calls


def time_rounds(
    models: Dict[str, Tuple[Model, Rotation]],
    scenario: Scenario,
    *,
    rounds: int,
    calls: int,
    max_seconds: float,
    seed: int,
    lead_ins: Optional[Dict[str, int]] = None,
) -> Dict[str, np.ndarray]:
    """Time all contenders in rounds; in each of them every one runs once, in shuffled order.

    Args:
        models: each contender with its inputs.
        scenario: how calls arrive.
        rounds: at most.
        calls: of each contender in a round.
        max_seconds: after which no further round starts; the first always does.
        seed: of the shuffling.
        lead_ins: arrivals of each contender that are not timed, in an open loop.

    Returns:
        Nanoseconds per contender, [rounds, calls] int64, in the order of time.
    """
    lead_ins = lead_ins or {}
    rng, names = random.Random(seed), list(models)
    samples = {name: np.zeros((rounds, calls), np.int64) for name in names}
    unclocked = np.zeros(min(UNTIMED_AFTER_SWITCH, calls), np.int64)
    start, done = time.perf_counter(), 0
    gc.disable()
    try:
        while done < rounds and (done == 0 or time.perf_counter() - start < max_seconds):
            rng.shuffle(names)
            for name in names:
                model, rotation = models[name]
                _time_closed(model, rotation, unclocked)
                scenario.time_calls(model, rotation, samples[name][done], lead_ins.get(name, 0))
            done += 1
    finally:
        gc.enable()
    return {name: taken[:done] for name, taken in samples.items()}
