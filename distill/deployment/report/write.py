"""The three forms of a report, and the sentence that says what was chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from distill.budget import Check, Choice, Outcome
from distill.files import write_bytes, write_text
from distill.pages import figure, render


def write_report(
    run_dir: Path, page: dict[str, Any], checks: Sequence[Check], choice: Choice
) -> None:
    """Write report.html, report.md and junit.xml."""
    write_text(run_dir / "report.html", render("report.html", page))
    write_text(run_dir / "report.md", render("report.md", page))
    write_bytes(run_dir / "junit.xml", junit(page["title"], checks, choice))


def junit(name: str, checks: Sequence[Check], choice: Choice) -> bytes:
    """Write checks as test cases, one suite per artefact.

    A check that does not pass is a failure, unless another artefact passes and is chosen: then the
    run is good, and the check is shown as skipped with its reason.
    """
    root = ElementTree.Element("testsuites", name=name)
    for artefact, outcome in choice.per_artefact.items():
        own = [check for check in checks if check.artefact == artefact]
        bad = [check for check in own if check.outcome is not Outcome.PASS]
        tag = "failure" if choice.artefact is None else "skipped"
        suite = ElementTree.SubElement(root, "testsuite", name=artefact)
        suite.set("tests", str(max(1, len(own))))
        suite.set("failures" if tag == "failure" else "skipped", str(len(bad)))
        if not own:
            ElementTree.SubElement(suite, "testcase", classname=artefact, name="no limits")
        for check in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{artefact}.{check.target}", name=check.name
            )
            if check in bad:
                text = f"{check.outcome}: measured {figure(check.measured)}, limit {check.limit:g}"
                if check.note:
                    text += f" ({check.note})"
                if tag == "skipped":
                    text += f"; {artefact} is {outcome}, {choice.artefact} passes and is chosen"
                ElementTree.SubElement(case, tag, message=text, type=str(check.outcome))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def choice_sentence(choice: Choice, target: str) -> str:
    """Say which artefact is chosen, or why none is."""
    if choice.artefact is not None:
        undecided = [n for n, o in choice.per_artefact.items() if o is Outcome.INCONCLUSIVE]
        text = f"{choice.artefact} holds the budget on {target} and is the fastest shown to."
        return f"{text} Not decided: {', '.join(undecided)}." if undecided else text
    states = ", ".join(f"{name}: {outcome}" for name, outcome in choice.per_artefact.items())
    if choice.outcome is Outcome.INCONCLUSIVE:
        return (
            f"Nothing is promoted: no artefact is shown to hold the budget on {target} ({states})."
        )
    return f"No artefact holds the budget on {target} ({states}); the checks below say what misses."
