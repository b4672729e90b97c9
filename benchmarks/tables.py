"""What distilling a mixture of classical models on tables keeps, saves and costs.

python benchmarks/tables.py                                    # an hour or two; resumes
python benchmarks/tables.py --parts latency --skl2onnx PYTHON  # some parts
python benchmarks/tables.py --quick                            # does it run

`accuracy` sets student, control, linear baseline and mixture beside each other in repeated
cross-validation; `latency` times single rows through mixture and student's file; `memory` loads a
million rows and trains an epoch, held against a plain loop; `regression`, on request, is
`accuracy` for numbers. `--skl2onnx` names an interpreter that has scikit-learn and skl2onnx (with
protobuf below 7), which converts the mixture for comparison. Each part is kept in
`results/tables.json` when it is done, folds as they are done. The last line of stdout is that
document.
"""

import json
from collections.abc import Sequence

import tables_accuracy
import tables_latency
import tables_memory
from common import keep, parsed, parser_of, started
from tables_subjects import CLASSES, NUMBERS, Subject

PARTS = ("accuracy", "latency", "memory", "regression")


def main() -> None:
    """Measure the parts asked for and put them beside those that are there."""
    parser = parser_of(__doc__, "tables", PARTS[:3])
    parser.add_argument("--skl2onnx", metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--jobs", type=int, default=2, help="accuracy: folds at a time")
    options, work, result = parsed(parser, "tables", PARTS)
    quick = options.quick
    document = started(result, "tables")

    def crossed(part: str, subjects: Sequence[Subject]) -> tuple[list[dict], list[dict]]:
        return tables_accuracy.rows(
            subjects,
            work,
            document["parts"].get(part, {}).get("rows", []),
            lambda *judged: keep(document, result, part, *judged),
            quick=quick,
            num_jobs=options.jobs,
        )

    measures = {
        "accuracy": lambda: crossed("accuracy", CLASSES),
        "latency": lambda: tables_latency.rows(work, options.skl2onnx, quick=quick),
        "memory": lambda: tables_memory.rows(work, quick=quick),
        "regression": lambda: crossed("regression", NUMBERS),
    }
    for part in options.parts:
        keep(document, result, part, *measures[part]())
    print(json.dumps(document))


if __name__ == "__main__":
    main()
