"""What the benchmarks share: checks, the machine, spread."""

import argparse
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from scipy.stats import binom

from distill.deployment.device.machine import describe
from distill.files import read_json, write_json
from distill.run_folder import versions

HERE = Path(__file__).parent


def check(name: str, measured: float, limit: float, *, at_most: bool = False) -> dict:
    """Hold a figure against its limit."""
    holds = measured <= limit if at_most else measured >= limit
    return {"name": name, "limit": limit, "measured": measured, "holds": bool(holds)}


def spread(values: Sequence[float]) -> dict:
    """Give the median of some measurements, its interval, their range and their number.

    The interval is the sign test's, from one of the smallest to one of the largest values: it
    covers the true median in at least 95 % of cases whatever the distribution, and needs six.
    """
    ordered, n = sorted(values), len(values)
    ranks = [k for k in range(1, n // 2 + 1) if 2 * binom.cdf(k - 1, n, 0.5) <= 0.05]
    return {
        "median": median(ordered),
        "interval": [ordered[ranks[-1] - 1], ordered[n - ranks[-1]]] if ranks else None,
        "range": [ordered[0], ordered[-1]],
        "num_rounds": n,
    }


def environment() -> dict:
    """Say what machine and which code this was."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": describe()["processor"],
        "num_cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit,
        "versions": versions(),
    }


def parser_of(about: str | None, name: str, parts: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser of a benchmark in parts; the caller adds what is its own."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=parts)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--result", type=Path, help=f"default: results/{name}.json")
    parser.add_argument("--work", type=Path, default=Path("outputs") / name)
    return parser


def parsed(
    parser: argparse.ArgumentParser, name: str, parts: Sequence[str]
) -> tuple[argparse.Namespace, Path, Path]:
    """Read the command line; return it, the folder to work in, and the file of the result."""
    options = parser.parse_args()
    unknown = set(options.parts) - set(parts)
    if unknown:
        parser.error(f"expected parts of {', '.join(parts)} but got {', '.join(unknown)}")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "quick.json" if options.quick else HERE / "results" / f"{name}.json"
    return options, work, options.result or kept


def started(result: Path, benchmark: str) -> dict:
    """Read a document of parts that were measured before, or begin one."""
    return read_json(result) if result.exists() else {"benchmark": benchmark, "parts": {}}


def keep(document: dict, result: Path, part: str, rows: list[dict], checks: list[dict]) -> None:
    """Put a part's rows in the document, and the document on disk."""
    document["parts"][part] = {"environment": environment(), "rows": rows, "checks": checks}
    document["rows"] = [row for done in document["parts"].values() for row in done["rows"]]
    document["checks"] = [c for done in document["parts"].values() for c in done["checks"]]
    write_json(result, document)
