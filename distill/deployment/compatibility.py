"""Does an artefact answer on another CPU as it did where it was made? Outcomes, in words.

Pure arithmetic on what a CPU answered; knows nothing of how it was asked.
"""

from dataclasses import dataclass
from typing import Any

SAME, CLOSE, DIFFERS = "same", "close", "differs"
ILLEGAL, CANNOT_RUN = "illegal instruction", "cannot run"

SAME_STD = 1e-5  # float32 on x86 and ARM differ by up to 4e-6 of the outputs' spread: rounding
CLOSE_STD = 1e-2  # a budget's usual limit of parity between torch and its export
GREW = 1.5  # int8 of the same artefact rounds alike everywhere; VPMADDUBSW's saturation: 3 to 4

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one artefact answered on a CPU; None is unknown, where it did not.

    Attributes:
        artefact: file name.
        outcome: `same` (within rounding), `close` (within `CLOSE_STD`, and every sample has the
            same largest output), `differs`, `illegal instruction` or `cannot run`.
        text: the outcome's evidence, in a few words.
        max_abs: largest difference from this machine's answers.
        output_std: root mean square of the difference, in units of the outputs' spread.
        top1_agreement: share of the samples whose largest output is the same.
        num_samples: compared.
        finite: whether all answers were numbers.
        error_vs_first: of the answers there, against the first artefact's on this machine, in
            units of its outputs' spread. What quantisation costs there.
        error_vs_first_here: of this machine's own answers. If int8 sums saturate on the other
            CPU, the error there is much larger.
        reason: why it could not run.
    """

    artefact: str
    outcome: str
    text: str
    max_abs: float | None = None
    output_std: float | None = None
    top1_agreement: float | None = None
    num_samples: int = 0
    finite: bool | None = None
    error_vs_first: float | None = None
    error_vs_first_here: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """How artefacts answer on one CPU.

    Attributes:
        target: name.
        cpu: as the emulator calls it.
        architecture: of it.
        rows: one per artefact, in their order.
        versions: of what ran there: emulator, Python, numpy, onnxruntime. A wheel for another CPU
            is another file, and its faults are its own.
    """

    target: str
    cpu: str
    architecture: str
    rows: tuple[Answers, ...]
    versions: dict[str, str]


def answered(artefact: str, result: Result, *, error_here: float | None) -> Answers:
    """Judge answers that came back.

    Args:
        artefact: file name.
        result: of the `golden` step, asked with a reference.
        error_here: this machine's own error against the reference; None where outputs differ in
            shape.
    """
    std, agreement = result["output_std"], result["top1_agreement"]
    if not result["finite"]:
        outcome, text = DIFFERS, "answers that are not numbers"
    elif result["max_abs"] == 0:
        outcome, text = SAME, "bit for bit"
    elif std <= SAME_STD:
        outcome, text = SAME, "but for rounding"
    elif std <= CLOSE_STD and agreement == 1:
        outcome, text = CLOSE, f"same classes, outputs {std:.2g} of their spread apart"
    else:
        classes = "same classes" if agreement == 1 else f"{1 - agreement:.1%} of answers differ"
        outcome, text = DIFFERS, f"{classes}, outputs {std:.2g} of their spread apart"
    there = result["error_vs_reference"]
    if outcome != SAME and error_grew(there, error_here):
        text += f"; error against the first artefact {there:.2g}, here {error_here:.2g}"
    return Answers(
        artefact=artefact,
        outcome=outcome,
        text=text,
        max_abs=result["max_abs"],
        output_std=std,
        top1_agreement=agreement,
        num_samples=result["num_samples"],
        finite=result["finite"],
        error_vs_first=there,
        error_vs_first_here=error_here,
    )


def error_grew(there: float | None, here: float | None) -> bool:
    """Whether quantisation costs much more on the other CPU: int8 sums saturate there.

    A rounding error of float32 may grow as it likes: it counts from `CLOSE_STD` on.
    """
    return there is not None and here is not None and there > CLOSE_STD and there > GREW * here


def unanswered(artefact: str, reason: str, *, illegal: bool) -> Answers:
    """Note an artefact that did not answer, and why."""
    outcome = ILLEGAL if illegal else CANNOT_RUN
    text = "the program uses an instruction that this CPU lacks" if illegal else reason
    return Answers(artefact=artefact, outcome=outcome, text=text, reason=reason)
