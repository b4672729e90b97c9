"""What the main job must reach: the demo, CIFAR-10 on a short schedule, and a quick import.

.venv/bin/python benchmarks/reach.py [--quick] [--cifar10 ROOT] [--runs FOLDER]

`--quick` leaves CIFAR-10 out. Run folders are kept under `--runs`, and a stage that is finished
there is not run again: its seconds are those it took when it ran. The last line of stdout is the
JSON document that is also written under `results/`, with the README's table and picture beside it.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import reach_shown
from common import HERE, check, environment

from distill.files import read_json, write_json


def main() -> None:
    """Run the pipelines, time the import, and hold the figures against their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cifar10", metavar="ROOT", help="folder of train.parquet, test.parquet")
    parser.add_argument("--runs", type=Path, default=Path("outputs/reach"))
    options = parser.parse_args()
    rows, checks = import_time()
    digits = pipeline(options.runs / "digits", [])
    rows.append(digits)
    checks += [
        check("digits: seconds", digits["seconds"], 120, at_most=True),
        check("digits: teacher accuracy", digits["teacher"], 0.98),
        check("digits: student accuracy", digits["student"], 0.97),
        check("digits: student p95 latency, ms", digits["student_p95_ms"], 0.2, at_most=True),
        check("digits: exit code", digits["exit_code"], 0, at_most=True),
    ]
    if options.cifar10 and not options.quick:
        overrides = ["experiment=cifar10", f"data.root={options.cifar10}"]
        cifar10 = pipeline(options.runs / "cifar10", overrides)
        rows.append(cifar10)
        checks += [
            check("cifar10: seconds", cifar10["seconds"], 1800, at_most=True),
            check("cifar10: teacher accuracy", cifar10["teacher"], 0.83),
            check("cifar10: student accuracy", cifar10["student"], 0.74),
            check("cifar10: student parameters", cifar10["parameters"], 80_000, at_most=True),
        ]
    document = {
        "benchmark": "reach",
        "environment": environment(),
        "rows": rows,
        "checks": checks,
    }
    write_json(HERE / "results" / "reach.json", document)
    reach_shown.write(document, HERE / "results")
    print(json.dumps(document))


def import_time(rounds: int = 20) -> tuple[list[dict], list[dict]]:
    """Time `import distill` in fresh processes, interleaved with an empty program as control."""
    programs = {"empty": "pass", "distill": "import distill", "cli": "import distill.cli"}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, code in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - start)
    row = {
        "subject": "import",
        "rounds": rounds,
        **{f"{name}_ms": 1000 * median(taken) for name, taken in seconds.items()},
        **{f"{name}_ms_range": [1000 * min(t), 1000 * max(t)] for name, t in seconds.items()},
    }
    cost = row["distill_ms"] - row["empty_ms"]
    return [row], [check("import distill, ms over an empty program", cost, 50, at_most=True)]


def pipeline(run_dir: Path, overrides: list[str]) -> dict:
    """Run (or finish) one pipeline and gather its figures."""
    command = [sys.executable, "-m", "distill", "pipeline", f"run_dir={run_dir}", *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    verdict = read_json(run_dir / "verdict.json")
    manifests = sorted((run_dir / "manifests").rglob("*.json"))
    stages = {
        str(path.relative_to(run_dir / "manifests").with_suffix("")): read_json(path)["seconds"]
        for path in manifests
    }
    models = verdict["models"]
    return {
        "subject": run_dir.name,
        "exit_code": done.returncode,
        "verdict": verdict["verdict"],
        "seconds": sum(stages.values()),
        "stage_seconds": stages,
        "parameters": read_json(run_dir / "train" / "student.json")["num_parameters"],
        "teacher": models["teacher"]["accuracy"],
        "student": models["student"]["accuracy"],
        "student_p95_ms": models["student"]["p95_latency_ms"],
        "models": models,
        "checks_not_passed": [one for one in verdict["checks"] if one["outcome"] != "pass"],
        "distillation_gain": verdict["distillation_gain"],
        "did_distillation_help": verdict["did_distillation_help"],
    }


if __name__ == "__main__":
    main()
