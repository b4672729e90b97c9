"""What the benchmarks share: checks, the machine, spread."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from distill.files import versions

HERE = Path(__file__).parent


def check(name: str, measured: float, limit: float, *, at_most: bool = False) -> dict:
    """Hold a figure against its limit."""
    holds = measured <= limit if at_most else measured >= limit
    return {"name": name, "limit": limit, "measured": measured, "holds": bool(holds)}


def spread(values: Sequence[float]) -> dict:
    """Give the median of some measurements, their range and their number."""
    return {
        "median": median(values),
        "range": [min(values), max(values)],
        "num_rounds": len(values),
    }


def environment() -> dict:
    """Say what machine and which code this was."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    model = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.processor(),
        "num_cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit,
        "versions": versions(),
    }
