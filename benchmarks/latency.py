"""Whether the latencies, and what is decided on them, can be believed.

python benchmarks/latency.py                             # about an hour on 2 quiet cores
python benchmarks/latency.py --only gate timer           # some parts
python benchmarks/latency.py --only int8 --cifar10 ROOT --runs RUN...      # of finished runs
python benchmarks/latency.py --only repair --cifar10 ROOT --runs RUN       # of a resnet8
python benchmarks/latency.py --quick                     # a few minutes, wide intervals

`gate` judges synthetic latencies whose percentile is known; `aa` compares a model with itself 200
times; `timer` holds the timer against MLPerf's loadgen, a bare IO-binding loop and the bare model
and PyTorch; `verb` times `distill benchmark`; `int8` takes the artefacts of a finished run with
`quantize=auto`; `processors` answers under emulation (`--download` fetches the emulators once);
`repair` mends a student that int8 breaks. Each part is kept in `results/latency.json` when it is
done. The last line of stdout is that document.
"""

import argparse
import json
from pathlib import Path

import latency_gate
import latency_int8
import latency_processors
import latency_repair
import latency_timer
from common import HERE, keep, started

PARTS = ("gate", "aa", "timer", "verb", "int8", "processors", "repair")


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:4])
    parser.add_argument("--runs", nargs="+", type=Path, default=(), help="with quantize=auto")
    parser.add_argument("--cifar10", metavar="ROOT", help="train.parquet and test.parquet")
    parser.add_argument("--overrides", nargs="+", default=(), help="repair: of the run's config")
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--result", type=Path, help="default: results/latency.json")
    parser.add_argument("--work", type=Path, default=Path("outputs/latency"))
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    result = options.result or (
        work / "quick.json" if options.quick else HERE / "results" / "latency.json"
    )
    document = started(result, "latency")
    quick = options.quick
    measures = {
        "gate": lambda: latency_gate.rows(50 if quick else 600),
        "aa": lambda: latency_timer.against_itself(work, 10 if quick else 200),
        "timer": lambda: latency_timer.rows(work, 3 if quick else 9),
        "verb": lambda: latency_timer.verb(work),
        "processors": lambda: latency_processors.rows(work, options.download),
        "repair": lambda: latency_repair.rows(
            options.runs[0], options.cifar10, options.overrides, work
        ),
        "int8": lambda: latency_int8.rows(options.runs, options.cifar10),
    }
    for part in options.only:
        if part in ("int8", "repair") and not options.runs:
            continue
        keep(document, result, part, *measures[part]())
    print(json.dumps(document))


if __name__ == "__main__":
    main()
