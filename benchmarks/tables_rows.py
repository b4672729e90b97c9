"""A generated table: numbers, gaps, categories of few and many values, booleans, a date."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_NUMBERS, NUM_WHOLE, NUM_BOOLEANS = 34, 4, 5
CATEGORIES = {"plan": 4, "channel": 8, "region": 12, "store": 200, "product": 900, "city": 20_000}
LABEL, CLASSES = "churned", np.array(["no", "later", "soon"])
ROW_GROUP = 50_000
START_MS, DAYS = 1_577_836_800_000, 1461  # 2020 to 2023


def write_table(path: Path, num_rows: int, seed: int = 0) -> None:
    """Write 50 columns and a label group by group, so that they are never in memory at once."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=NUM_NUMBERS)
    writer = None
    for start in range(0, num_rows, ROW_GROUP):
        part = _part(rng, weights, min(ROW_GROUP, num_rows - start))
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    if writer is not None:
        writer.close()


def _part(rng: np.random.Generator, weights: np.ndarray, size: int) -> pa.Table:
    numbers = rng.normal(size=(size, NUM_NUMBERS))
    score = numbers @ weights / 4 + np.sin(2 * numbers[:, 0]) * numbers[:, 1]
    columns: dict[str, pa.Array] = {}
    for number in range(NUM_NUMBERS):
        gap = rng.random(size) < 0.1 if number % 4 == 0 else None
        columns[f"number_{number:02d}"] = pa.array(10 + 3 * numbers[:, number], mask=gap)
    for number in range(NUM_WHOLE):
        columns[f"count_{number}"] = pa.array(rng.poisson(3.0 * (number + 1), size))
    for number in range(NUM_BOOLEANS):
        gap = rng.random(size) < 0.05 if number == 0 else None
        columns[f"flag_{number}"] = pa.array(rng.random(size) < 0.3, mask=gap)
    for name, count in CATEGORIES.items():
        code = (count * rng.random(size) ** 2).astype(np.int64)  # some far commoner than others
        score += np.cos(code) / 2
        gap = rng.random(size) < 0.02 if name == "channel" else None
        columns[name] = pa.array(np.char.add(f"{name}_", code.astype(str)), mask=gap)
    moments = START_MS + rng.integers(0, DAYS * 86_400_000, size)
    columns["opened"] = pa.array(moments, pa.timestamp("ms"))
    label = np.digitize(score + rng.normal(0, 0.5, size), [-0.5, 0.7])
    columns[LABEL] = pa.array(CLASSES[label])
    return pa.table(columns)
