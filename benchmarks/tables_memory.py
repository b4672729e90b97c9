"""A million rows and 50 columns: what loading and an epoch take, and what the trainer adds."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from common import HERE, check, spread
from tables_rows import write_table

NUM_ROWS = 1_000_000
LIMIT_BYTES = 4 << 30
LEAST_PACE = 0.8  # of a plain loop's rows a second
ROUNDS = 7
CLOCKS = ("on the wall", "of CPU time")  # the second is that of one thread


def rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Write the table, and measure in processes of their own."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        path = Path(name) / "rows.parquet"
        write_table(path, 20_000 if quick else NUM_ROWS)
        facts = {"num_rows": pq.read_metadata(path).num_rows, "bytes": path.stat().st_size}
        memory = _measured("memory", path, Path(name), 0)
        pace = _measured("pace", path, Path(name), 2 if quick else ROUNDS)
    row: dict = {"subject": "pace, rows a second", "threads": pace["threads"]}
    for at, clock in enumerate(CLOCKS):
        rates = {name: [rate[at] for rate in taken] for name, taken in pace["rates"].items()}
        row |= {f"{name}, {clock}": spread(values) for name, values in rates.items()}
        over = [a / b for a, b in zip(rates["product"], rates["plain loop"], strict=True)]
        row[f"product_over_plain_loop, {clock}"] = spread(over)
    peak = memory["steps"]["one epoch"]["peak_rss_bytes"]
    over = row[f"product_over_plain_loop, {CLOCKS[1]}"]
    name = f"{facts['num_rows']:,} rows x {memory['num_columns']} columns"
    return [{"subject": "memory"} | facts | memory, row], [
        check(f"{name}: peak memory, bytes", peak, LIMIT_BYTES, at_most=True),
        check(f"{name}: rows a second over a plain loop's, {CLOCKS[1]}", over["median"], LEAST_PACE)
        | {"interval": over["interval"] or over["range"]},
    ]


def _measured(what: str, path: Path, work: Path, rounds: int) -> dict:
    command = [sys.executable, HERE / "tables_memory_worker.py", what, path, work, str(rounds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    environment["OMP_NUM_THREADS"] = "1"  # more would wait for each other beside other programs
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])
