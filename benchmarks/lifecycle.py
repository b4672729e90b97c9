"""What monitoring knows, and how wrong it is, where the truth is known.

python benchmarks/lifecycle.py                       # an hour; resumes
python benchmarks/lifecycle.py --parts estimates     # some parts
python benchmarks/lifecycle.py --cifar10 ROOT        # and those on CIFAR-10: an hour more
python benchmarks/lifecycle.py --quick               # does it run

`estimates` trains weak and strong students of a mixture on digits, lets the world change in nine
ways, and holds every estimate of accuracy against the truth; `audit` how often intervals by few
labels hold it; `active` what strategies of choosing what to label save; `alarms` looks at a
thousand weeks in which nothing changes; `log` at a log of ten million predictions; `circle` goes
from a changed world to a promoted successor.
`cifar10_estimates` (audit included) and `cifar10_active` ask the same of photographs. Each part is
kept in `results/lifecycle.json` when it is done, beside pictures of the `active` ones. The last
line of stdout is that document.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import lifecycle_active
import lifecycle_alarms
import lifecycle_cifar10
import lifecycle_circle
import lifecycle_estimates
import lifecycle_log
from common import HERE, keep, started

from distill.files import write_text

PARTS = {
    "estimates": lifecycle_estimates.estimate_rows,
    "audit": lifecycle_estimates.audit_rows,
    "active": lifecycle_active.digits_rows,
    "alarms": lifecycle_alarms.rows,
    "log": lifecycle_log.rows,
    "circle": lifecycle_circle.rows,
}
CIFAR_PARTS = {
    "cifar10_estimates": lifecycle_cifar10.estimate_rows,
    "cifar10_active": lifecycle_cifar10.active_rows,
}
PICTURES = {"active": lifecycle_active.picture, "cifar10_active": lifecycle_active.picture}


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--cifar10", metavar="ROOT", help="train.parquet and test.parquet")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--result", type=Path, help="default: results/lifecycle.json")
    parser.add_argument("--work", type=Path, default=Path("outputs/lifecycle"))
    options = parser.parse_args()
    measures = dict(PARTS)
    if options.cifar10:
        root = str(Path(options.cifar10).resolve())
        measures |= {name: partial(part, root) for name, part in CIFAR_PARTS.items()}
    unknown = set(options.parts or ()) - set(measures)
    if unknown & set(CIFAR_PARTS):
        parser.error(f"expected --cifar10 for {', '.join(sorted(unknown))}")
    if unknown:
        parser.error(f"expected parts of {', '.join(measures)} but got {', '.join(unknown)}")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    name = "lifecycle.json"
    result = options.result or (work / name if options.quick else HERE / "results" / name)
    document = started(result, "lifecycle")
    for part in options.parts or measures:
        rows, checks = measures[part](work, quick=options.quick)
        keep(document, result, part, rows, checks)
        if part in PICTURES:
            write_text(result.with_name(f"lifecycle_{part}.svg"), PICTURES[part](rows))
    print(json.dumps(document))


if __name__ == "__main__":
    main()
