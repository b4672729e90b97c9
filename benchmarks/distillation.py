"""What distillation costs and what it is worth.

python benchmarks/distillation.py --cifar10 ROOT                 # all of it: hours on 2 cores
python benchmarks/distillation.py --cifar10 ROOT --only parts speed --rounds 5
python benchmarks/distillation.py --cifar10 ROOT --only accuracy
python benchmarks/distillation.py --cifar10 ROOT --only gpu      # where there is one

`parts` times views, loop and store; `speed` holds training and labelling against plain training
and, where it is installed (`pip install torchdistill==1.1.5`), torchdistill; `accuracy` trains a
table of losses, views and precisions, and keeps every row as it is done. Each part is kept in
`results/distillation.json` when it is done. The last line of stdout is that document.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import distillation_accuracy
import distillation_gpu
import distillation_parts
import distillation_speed
from common import HERE, keep, started

PARTS = ("parts", "speed", "accuracy", "gpu")


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", metavar="ROOT", required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:3])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="few rounds, no accuracy")
    parser.add_argument("--jobs", type=int, default=2, help="accuracy: trainings at a time")
    parser.add_argument("--result", type=Path, help="default: results/distillation.json")
    parser.add_argument("--work", type=Path, default=Path("outputs/distillation"))
    options = parser.parse_args()
    result = options.result or HERE / "results" / "distillation.json"
    if options.quick:
        options.only, options.rounds = ["parts", "speed"], 2
        result = options.result or options.work / "quick.json"
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    document = started(result, "distillation")
    peer = importlib.util.find_spec("torchdistill") is not None

    kept = document["parts"].get("accuracy", {}).get("rows", [])
    measures = {
        "parts": lambda: distillation_parts.rows(work / "parts"),
        "speed": lambda: distillation_speed.rows(
            options.cifar10, work / "speed", options.rounds, peer
        ),
        "accuracy": lambda: distillation_accuracy.rows(
            options.cifar10,
            work / "accuracy",
            kept,
            lambda *compared: keep(document, result, "accuracy", *compared),
            options.jobs,
        ),
        "gpu": lambda: distillation_gpu.rows(options.cifar10, work / "gpu"),
    }
    for part in options.only:
        keep(document, result, part, *measures[part]())
    print(json.dumps(document))


if __name__ == "__main__":
    main()
