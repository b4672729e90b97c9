"""The matrix artefact x processor: who answers alike where."""

from typing import Any

from distill.deployment.report.cells import Values, cell


def matrix_table(compatibility: Values) -> list[dict[str, Any]]:
    """Make a table of what each artefact answers under each emulated processor.

    Args:
        compatibility: `{"processors": [...]}`, each with `cpu` and `rows`; empty without any.
    """
    processors = compatibility.get("processors", [])
    if not processors:
        return []
    artefacts = [row["artefact"] for row in processors[0]["rows"]]
    rows = []
    for artefact in artefacts:
        found = [next(r for r in p["rows"] if r["artefact"] == artefact) for p in processors]
        rows.append([cell(artefact), *[cell(row["outcome"], row["text"]) for row in found]])
    return [
        {
            "title": "Answers on other processors",
            "columns": ["artefact", *[p["cpu"] for p in processors]],
            "rows": rows,
            "note": (
                "Under user-mode emulation, against what the same file answers on this machine. "
                "Emulation says nothing about latency."
            ),
        }
    ]
