"""What people say of CIFAR-10's test set, beside the baselines that ask nobody.

python benchmarks/people.py --cifar10 ROOT --humans FILE

FILE is CIFAR-10H (Peterson et al., "Human uncertainty makes classification more robust", 2019) as a
table of `index` or `path`, and `counts` by class. `distill baseline` reads it; nothing is trained.
The last line of stdout is one JSON document, also kept as `results/people.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import HERE, environment

from distill.files import read_json, write_json


def main() -> None:
    """Score people and baselines on the test set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", metavar="ROOT", required=True)
    parser.add_argument("--humans", metavar="FILE", required=True)
    parser.add_argument("--result", type=Path, default=HERE / "results" / "people.json")
    options = parser.parse_args()
    given = [f"data.root={options.cifar10}", f"humans=[{options.humans}]"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "distill", "baseline", "experiment=cifar10", *given]
        subprocess.run([*command, f"run_dir={folder}"], stdout=sys.stderr, check=True)
        found = read_json(Path(folder) / "baseline.json")
    baselines = {name: own["accuracy"] for name, own in found["baselines"].items()}
    row = {"subject": "CIFAR-10H", "baselines": baselines, "humans": found["humans"]}
    document = {"benchmark": "people", "environment": environment(), "rows": [row], "checks": []}
    write_json(options.result, document)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
