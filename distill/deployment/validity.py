"""What disturbed a measurement, in words: stolen time, throttling, other programs, drift."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MAX_STEAL = MAX_OTHERS = 0.05  # of the wall time, each CPU's
MAX_DRIFT = 0.05  # of the reference's latency, from the first third of the rounds to the last
HOT_CELSIUS = 80.0
_NOW, _SINCE_BOOT = 0xF, 0xF0000  # of a Raspberry Pi's flags


def problems(
    steps: Sequence[Mapping[str, Any]],
    reference: Sequence[NDArray[np.int64]],
    *,
    num_threads: int,
    num_cpus: int,
) -> list[str]:
    """Name what makes this run's latencies those of a disturbed machine.

    Args:
        steps: results of the measuring processes, with the machine's counters before and after.
        reference: nanoseconds of the first contender in each of them, [rounds, calls].
        num_threads: of the target.
        num_cpus: that the measuring process could use: as many as threads where it is pinned.
    """
    found = []
    wall = max(sum(step["wall_s"] for step in steps), 1e-9)
    steal = _grown(steps, "steal_s") / wall
    if steal > MAX_STEAL * num_threads:
        found.append(f"the hypervisor gave {steal:.1%} of a CPU to others")
    throttled = _grown(steps, "throttled")
    if throttled > 0:
        found.append(f"the CPU quota of this container was used up in {throttled:.0f} periods")
    others = (_grown(steps, "busy_s") - sum(step["cpu_s"] for step in steps)) / wall
    if others > num_cpus - num_threads + MAX_OTHERS * num_threads:
        found.append(f"other programs took {others:.1%} of a CPU that was to be measured")
    if any(_throttles(step) for step in steps):
        found.append("the board reports under-voltage or throttling")
    celsius = max((step["after"]["celsius"] or 0.0) for step in steps)
    if celsius > HOT_CELSIUS:
        found.append(f"the processor was at {celsius:.0f} degrees Celsius")
    drift = _drift(reference)
    if abs(drift) > MAX_DRIFT:
        word = "rose" if drift > 0 else "fell"
        found.append(f"latency {word} by {abs(drift):.0%} from the start to the end of the run")
    return found


def _grown(steps: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum((step["after"][name] or 0) - (step["before"][name] or 0) for step in steps)


def _throttles(step: Mapping[str, Any]) -> bool:
    """Tell whether a board throttles now, or did during the step; its flags remember since boot."""
    before, after = (int(step[when]["throttle_flags"] or 0) for when in ("before", "after"))
    return bool(after & _NOW or (after & ~before) & _SINCE_BOOT)


def _drift(reference: Sequence[NDArray[np.int64]]) -> float:
    """Relative change of the rounds' medians, 0 unless they rise or fall with time throughout."""
    medians = np.concatenate([np.median(taken, axis=1) for taken in reference])
    third = len(medians) // 3
    if third < 5 or np.ptp(medians) == 0:
        return 0.0
    correlation = float(np.corrcoef(np.arange(len(medians)), stats.rankdata(medians))[0, 1])
    if abs(correlation) < 0.5:
        return 0.0
    return float(np.median(medians[-third:]) / np.median(medians[:third]) - 1)
