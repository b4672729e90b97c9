"""The report of a benchmark of any ONNX files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.budget import Check, Choice
from distill.deployment.estimates import is_difference
from distill.deployment.report.cells import (
    Cell,
    Values,
    cell,
    check_row,
    facts_of,
    figure_cell,
    span,
    warnings_of,
)
from distill.deployment.report.matrix import matrix_table
from distill.deployment.report.pictures import latency_by_percentile
from distill.deployment.report.write import choice_sentence, write_report
from distill.pages import figure, size
from distill.statistics.metrics import estimate_from


def write_benchmark_report(
    run_dir: Path,
    benchmark: Values,
    compatibility: Values,
    checks: Sequence[Check],
    choice: Choice,
    *,
    samples: Mapping[str, NDArray[np.int64]],
    limits_ms: Mapping[float, float],
    refused: str | None = None,
) -> None:
    """Write the report in its three forms.

    Args:
        run_dir: where to.
        benchmark: `benchmark.json`.
        compatibility: `compatibility.json`; empty where no processor was emulated.
        checks: of every artefact.
        choice: among them.
        samples: `benchmark.npz`, raw nanoseconds.
        limits_ms: percentile to limit, to draw.
        refused: why untrained files end a pipeline; None where the files are those that ship.
    """
    calls = {row["artefact"]: samples.get(row["artefact"]) for row in benchmark["artefacts"]}
    measured = {name: taken for name, taken in calls.items() if taken is not None}
    page = {
        "title": f"{'preflight' if refused else 'benchmark'} on {benchmark['target']}",
        "verdict": str(choice.outcome),
        "headline": refused or choice_sentence(choice, benchmark["target"]),
        "sentences": _floor_sentence(benchmark["noise_floor"]),
        "warnings": warnings_of(benchmark),
        "columns": [
            "artefact",
            "p50 (ms)",
            "p95 (ms)",
            "p99 (ms)",
            "samples a second",
            "ratio to first",
            "cold start (ms)",
            "peak memory",
            "size",
        ],
        "rows": [_row(row, benchmark["noise_floor"], choice) for row in benchmark["artefacts"]],
        "table_note": (
            "Small print: intervals. Cold start and memory: median and range of fresh processes."
        ),
        "pictures": _pictures(measured, limits_ms),
        "checks": [check_row(check) for check in checks],
        "classes": [],
        "tables": [*_sweep_table(benchmark.get("sweep") or []), *matrix_table(compatibility)],
        "facts": facts_of(benchmark),
    }
    write_report(run_dir, page, checks, choice)


def _pictures(
    calls: Mapping[str, NDArray[np.int64]], limits_ms: Mapping[float, float]
) -> list[dict[str, Any]]:
    if not calls:
        return []
    return [
        {
            "title": "Latency by percentile",
            "svg": latency_by_percentile(calls, limits_ms),
            "note": "Every call that was timed; none is left out. Latency is logarithmic.",
            "wide": True,
        }
    ]


def _floor_sentence(floor: Values | None) -> list[str]:
    if floor is None:
        return []
    return [
        f"Noise floor: the first artefact against itself has a ratio of {' ('.join(span(floor))}). "
        "A difference between artefacts counts only where its interval excludes 1 and it lies "
        "outside of this."
    ]


def _row(row: Values, floor: Values | None, choice: Choice) -> Values:
    memory = row["peak_rss_bytes"]
    cells = [
        cell(row["artefact"]),
        *[figure_cell(row[f"p{level}_latency_ms"]) for level in (50, 95, 99)],
        figure_cell(row["samples_per_second"]),
        _ratio(row["ratio_to_first"], floor),
        figure_cell(row["cold_start_ms"]),
        cell(size(memory["estimate"]) if memory else ""),
        cell(size(row["size_bytes"])),
    ]
    return {"chosen": row["artefact"] == choice.artefact, "cells": cells}


def _ratio(ratio: Values | None, floor: Values | None) -> Cell:
    if ratio is None or floor is None:
        return cell("")
    if ratio["interval"][0] == ratio["interval"][1] == 1:
        return cell("1", "the reference")
    shown = is_difference(estimate_from(ratio), estimate_from(floor))
    words = ("faster" if ratio["estimate"] < 1 else "slower") if shown else "no difference shown"
    text, interval = span(ratio)
    return cell(text, f"{words}, {interval}")


def _sweep_table(sweep: Sequence[Values]) -> list[dict[str, Any]]:
    if not sweep:
        return []
    rows = [
        [
            cell(row["artefact"]),
            cell(str(row["num_threads"])),
            cell(str(row["batch_size"])),
            figure_cell(row["p50_latency_ms"]),
            figure_cell(row["p95_latency_ms"]),
            figure_cell(row["samples_per_second"]),
            cell(figure(row["cpu_share"])),
        ]
        for row in sweep
    ]
    return [
        {
            "title": "Threads and batches",
            "columns": [
                "artefact",
                "threads",
                "batch",
                "p50 (ms)",
                "p95 (ms)",
                "samples a second",
                "CPUs used",
            ],
            "rows": rows,
            "note": "Of whole batches. CPUs used counts threads that spin while they wait.",
        }
    ]
