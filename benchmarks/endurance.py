"""What is left after hours, after kills, and on a full disk.

python benchmarks/endurance.py                    # an hour and a half; resumes
python benchmarks/endurance.py --parts soak       # some parts
python benchmarks/endurance.py --quick            # does it run

`soak` loads the service for twenty minutes with everything that it answers, while versions are
promoted and taken back and a challenger fails; `kills` ends pipelines, soft-label builds,
promotions and services with SIGKILL at random moments and starts them again; `disk` lets a pipeline
run into the end of a small file system, which only root can mount. Each part is kept in
`results/endurance.json` when it is done. The last line of stdout is that document.
"""

import json

import endurance_disk
import endurance_kills
import endurance_soak
from common import keep, parsed, parser_of, started

PARTS = ("soak", "kills", "disk")


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = parser_of(__doc__, "endurance", PARTS)
    parser.add_argument("--seed", type=int, default=0)
    options, work, result = parsed(parser, "endurance", PARTS)
    quick = options.quick
    document = started(result, "endurance")
    measures = {
        "soak": lambda: endurance_soak.rows(work / "soak", options.seed, quick=quick),
        "kills": lambda: endurance_kills.rows(work / "kills", options.seed, quick=quick),
        "disk": lambda: endurance_disk.rows(work / "disk", quick=quick),
    }
    for part in options.parts:
        keep(document, result, part, *measures[part]())
    print(json.dumps(document))


if __name__ == "__main__":
    main()
