"""Whether the registry survives being killed, and two processes at once.

python benchmarks/registry.py                      # about a quarter of an hour
python benchmarks/registry.py --quick              # half a minute
python benchmarks/registry.py --only kills --count 5000 --seed 7

`kills` ends promotions and rollbacks at random moments and looks after each with other code;
`register` does so with registrations and repeats them; `races` lets two processes promote at once;
`ledger` times reading a long one. The last line of stdout is one JSON document, also kept as
`results/registry.json`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

from common import HERE, check, keep, spread, started
from registry_kills import kills, races, register_kills, warm_up

from distill.production.registry.ledger import Ledger

PARTS = ("kills", "register", "races", "ledger")
COUNTS = {"kills": 1000, "register": 100, "races": 50, "ledger": 1000}
QUICK = {"kills": 30, "register": 5, "races": 5, "ledger": 100}


def main() -> None:
    """Run the parts asked for and put them beside those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--count", type=int, help="how many of the parts asked for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--result", type=Path, help="default: results/registry.json")
    options = parser.parse_args()
    result = options.result or (
        Path("outputs/registry_quick.json") if options.quick else HERE / "results" / "registry.json"
    )
    document = started(result, "registry")
    warm_up()
    for part in options.only:
        count = options.count or (QUICK if options.quick else COUNTS)[part]
        with tempfile.TemporaryDirectory() as folder:
            keep(document, result, part, *measure(part, Path(folder), count, options.seed))
    print(json.dumps(document))


def measure(part: str, folder: Path, count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Run one part and hold it against what is claimed."""
    if part == "ledger":
        return ledger(folder, count)
    if part == "kills":
        row = kills(folder, count, seed)
    elif part == "register":
        row = register_kills(folder, count, seed)
    else:
        row = races(folder, count)
    name = f"{part}: wrong, of {count}"
    return [{"subject": part, **row}], [check(name, len(row["wrong"]), 0, at_most=True)]


def ledger(folder: Path, count: int) -> tuple[list[dict], list[dict]]:
    """Time reading and verifying a ledger, as everything that asks for the champion does."""
    facts = {"content": "c" * 64, "artefact": "model.onnx", "artefact_sha256": "a" * 64}
    finding = {"rule": "drop_vs_champion", "outcome": "pass", "note": "n" * 120, "measured": 0.1}
    book = Ledger.read(folder / "ledger.jsonl")
    for version in (1, 2):
        book = book.append("register", version, **facts)
    for number in range(count - 2):
        version = number % 2 + 1
        book = book.append("promote", version, alias="champion", evidence=(finding,) * 3, **facts)
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        champion = Ledger.read(book.path).state.champion
        seconds.append(time.perf_counter() - start)
    assert champion == (count - 3) % 2 + 1
    row = {
        "subject": f"reading {count} entries",
        "milliseconds": spread([1e3 * s for s in seconds]),
    }
    limit = "ledger: milliseconds to read the champion"
    return [row], [check(limit, 1e3 * median(seconds), 250, at_most=True)]


if __name__ == "__main__":
    main()
