"""What a search costs, whether it can be believed, and what it finds.

python benchmarks/search.py                              # about half an hour on 2 quiet cores
python benchmarks/search.py --only preflight digits      # some parts
python benchmarks/search.py --only cifar --cifar10 ROOT [--teacher WEIGHTS]   # about an hour
python benchmarks/search.py --quick                      # few epochs, one seed: does it run

`preflight` times 20 candidates, and holds the latency of untrained files against that of trained
ones by Kendall's tau; `digits` searches with five seeds, and trains whatever is cheaper than the
winner in full: which is really the cheapest that holds; `cifar` searches once. Run folders are
kept under `--work`, and what is finished there is not run again. Each part is kept in
`results/search.json` when it is done. The last line of stdout is that document.
"""

import argparse
import json
from pathlib import Path

import search_parts
from common import HERE, keep, started

PARTS = ("preflight", "digits", "cifar")


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cifar10", metavar="ROOT", help="train.parquet and test.parquet")
    parser.add_argument("--teacher", metavar="WEIGHTS", help="of a resnet20; else it is trained")
    parser.add_argument("--overrides", nargs="+", default=(), help="of the search of `cifar`")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--result", type=Path, help="default: results/search.json")
    parser.add_argument("--work", type=Path, default=Path("outputs/search_benchmark"))
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    result = options.result or (
        work / "quick.json" if options.quick else HERE / "results" / "search.json"
    )
    document = started(result, "search")
    measures = {
        "preflight": lambda: search_parts.preflight(work, quick=options.quick),
        "digits": lambda: search_parts.digits(work, quick=options.quick),
        "cifar": lambda: search_parts.cifar(
            work, options.cifar10, options.teacher, options.overrides
        ),
    }
    for part in options.only:
        if part == "cifar" and not options.cifar10:
            continue
        keep(document, result, part, *measures[part]())
    print(json.dumps(document))


if __name__ == "__main__":
    main()
