"""What the service costs, bears and decides: speed, shadows, faults, and statistics.

python benchmarks/serving.py --litserve PYTHON    # an hour; resumes
python benchmarks/serving.py --parts faults       # some parts
python benchmarks/serving.py --quick              # does it run

`speed` sets the service beside LitServe and a minimal FastAPI application, a process each, and
beside the bare onnxruntime call; `shadow` with a shadow beside without; `faults` kills, freezes and
breaks the challenger, then the service itself; `statistics` looks at simulated experiments after
every observation. `--litserve` names an interpreter that has litserve, numpy and onnxruntime. Each
part is kept in `results/serving.json` when it is done. The last line of stdout is that document.
"""

import json

import serving_faults
import serving_speed
import serving_statistics
from common import keep, parsed, parser_of, started

PARTS = ("speed", "shadow", "faults", "statistics")


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = parser_of(__doc__, "serving", PARTS)
    parser.add_argument("--litserve", metavar="PYTHON", help="an interpreter that has it")
    options, work, result = parsed(parser, "serving", PARTS)
    quick = options.quick
    document = started(result, "serving")
    measures = {
        "speed": lambda: serving_speed.rows(work, options.litserve, quick=quick),
        "shadow": lambda: serving_speed.shadow_rows(work, quick=quick),
        "faults": lambda: serving_faults.rows(work, quick=quick),
        "statistics": lambda: serving_statistics.rows(quick=quick),
    }
    for part in options.parts:
        keep(document, result, part, *measures[part]())
    print(json.dumps(document))


if __name__ == "__main__":
    main()
