"""What monitoring knows, and how wrong it is, where the truth is known.

python benchmarks/lifecycle.py                       # half an hour; resumes
python benchmarks/lifecycle.py --parts estimates     # some parts
python benchmarks/lifecycle.py --quick               # does it run

`estimates` trains weak and strong students of a mixture on digits, lets the world change in nine
ways, and holds every estimate of accuracy against the truth; `audit` how often intervals by few
labels hold it; `alarms` looks at a thousand weeks in which nothing changes; `log` at a log of ten
million predictions. Each part is kept in `results/lifecycle.json` when it is done. The last line of
stdout is that document.
"""

import argparse
import json
from pathlib import Path

import lifecycle_alarms
import lifecycle_estimates
import lifecycle_log
from common import HERE, keep, started

PARTS = {
    "estimates": lifecycle_estimates.estimate_rows,
    "audit": lifecycle_estimates.audit_rows,
    "alarms": lifecycle_alarms.rows,
    "log": lifecycle_log.rows,
}


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--result", type=Path, help="default: results/lifecycle.json")
    parser.add_argument("--work", type=Path, default=Path("outputs/lifecycle"))
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"expected parts of {', '.join(PARTS)} but got {', '.join(unknown)}")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    name = "lifecycle.json"
    result = options.result or (work / name if options.quick else HERE / "results" / name)
    document = started(result, "lifecycle")
    for part in options.parts:
        keep(document, result, part, *PARTS[part](work, quick=options.quick))
    print(json.dumps(document))


if __name__ == "__main__":
    main()
