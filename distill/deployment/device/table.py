"""What was measured beside a budget's limits, as a small table for those who run a bundle by hand.

Of latency alone: the rest is judged where the bundle was made.
"""

from typing import Any, Dict, List, Sequence

import numpy as np

from distill.deployment.device import gate

LEVELS = (50, 95, 99)


def table(taken: Dict[str, List[np.ndarray]], budget: Dict[str, Any], plan: Dict[str, Any]) -> str:
    """Show p50, p95 and p99 of every contender, and what the gate says of those with a limit.

    Args:
        taken: nanoseconds of each contender, [rounds, calls] for every measuring process.
        budget: as `budget.json` holds it.
        plan: the runner's, for the contenders whose limits count and the gate's first look.
    """
    limits = {level: budget["latency"]["p%d_ms" % level] for level in LEVELS}
    rows = [["", *("p%d ms" % level for level in LEVELS)]]
    for name, processes in taken.items():
        calls = np.concatenate([samples.ravel() for samples in processes])
        row = [name]
        for level, limit in limits.items():
            cell = "%.3f" % (float(np.percentile(calls, level)) / 1e6)
            if limit is not None and name in plan["gated"]:
                first_look = plan["processes"]
                verdict = gate.judge(
                    processes, 1e6 * limit, level, budget["confidence"], first_look
                )
                cell += " " + verdict.outcome
            row.append(cell)
        rows.append(row)
    if any(limit is not None for limit in limits.values()):
        told = ("-" if limit is None else "%g" % limit for limit in limits.values())
        rows.append(["at most", *told])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
