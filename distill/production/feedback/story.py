"""What a survey found, in figures and in words: what is proven, what is lost, what to do.

Knows surveys; knows nothing of how they are shown.
"""

from typing import Any

from distill.files import to_json
from distill.production.feedback.precision import Proof
from distill.production.feedback.survey import Looking, Survey
from distill.production.feedback.teacher import Teacher
from distill.production.feedback.verdicts import upheld


def audit_facts(seen: Survey, looking: Looking) -> dict[str, Any]:
    """Figures of the audit: how many rows, of how many the truth is known, the accuracy."""
    accuracy = seen.audit.accuracy(confidence=looking.confidence)
    return {
        "share": seen.shares[-1].share,
        "num_drawn": seen.audit.num_drawn,
        "num_open": seen.audit.num_open,
        "num_judged": len(seen.audit.ids),
        "num_judged_of_this_version": seen.audit.num_answered,
        "accuracy": to_json(accuracy),
        "confidence": looking.confidence,
    }


def teacher_facts(seen: Survey, teacher: Teacher) -> dict[str, Any]:
    """Figures of the teacher: who it is, above which confidence it labels, and on what proof."""
    proof = seen.proof
    return {
        "path": None if teacher.path is None else str(teacher.path),
        "sha256": teacher.sha256,
        "problem": teacher.problem,
        "threshold": None if proof is None else proof.threshold,
        "may_teach": proof is not None and proof.may_teach,
        "proof": to_json(proof),
    }


def people_facts(seen: Survey) -> dict[str, Any]:
    """Figures of people: how often they said what turned out later."""
    return to_json(upheld([*seen.queue.values()]))


def notes(seen: Survey, teacher: Teacher, *, num_without_input: int) -> list[str]:
    """Say what is lost, and what may be done about it.

    Args:
        seen: the log.
        teacher: that was named.
        num_without_input: rows that would have been taken, had their input been kept.
    """
    said = [] if teacher.problem is None else [teacher.problem]
    if num_without_input:
        said.append(
            f"{num_without_input:,} predictions have no input in the log and are passed over: "
            "nobody can be shown them, asked about them, or trained on them. The audit still "
            "counts what turns out of them. Serve with `log.inputs=keep` to have them."
        )
    if seen.answers.num_ahead:
        said.append(
            f"{seen.answers.num_ahead:,} predictions are of a time to come and wait for it: a "
            "clock is wrong, here or where the service runs."
        )
    people = upheld([*seen.queue.values()])
    if people.num_contradicted:
        said.append(
            f"Of {people.num_contradicted:,} items something else turned out than people had "
            "settled on: the truth counts, and what they said is kept. People said the truth in "
            f"{people.num_upheld:,} of {people.num_judged:,} labels."
        )
    if seen.proof is not None:
        said += _of_proof(seen.proof)
    return said


def _of_proof(proof: Proof) -> list[str]:
    first = proof.levels[0]
    if proof.threshold is None:
        best = max(proof.levels, key=lambda own: own.lower_bound)
        return [
            f"The teacher labels nothing: by {first.num_audited:,} audited rows its precision is "
            f"at least {best.lower_bound:.3f}, not {proof.target}. Label more of the audit; if "
            "the bound does not rise, the teacher is not good enough."
        ]
    level = proof.level
    assert level is not None
    if not proof.may_teach:
        return [
            f"Nothing of the teacher is trained on: of {level.num_differing:,} audited rows where "
            f"it is sure and differs from the model it is right in {level.num_differing_right:,}, "
            f"which proves {level.differing_lower_bound:.3f}, not {proof.differing_target}. People "
            "label those."
        ]
    return []
