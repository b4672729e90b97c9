"""`evaluate`: every figure that decides something, from the exported files, on the test set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from distill.deployment.device.machine import processor
from distill.deployment.evaluate import OldTest, References, evaluate, on_old_test
from distill.errors import UserError
from distill.files import read_json, write_arrays
from distill.run_folder import BASELINE_ANSWERS, BASELINE_SCORES, TEST_LOGITS
from distill.runtime import OnnxModel
from distill.verbs.baselines.humans import VOTES, human_files
from distill.verbs.baselines.incumbent import ask_incumbent, incumbent_path
from distill.verbs.exporting.artefacts import ARTEFACTS, CONTROL, MAY_SHIP, STUDENT
from distill.verbs.learning.members import load_teacher
from distill.verbs.run.workspace import Workspace, open_workspace, plain


def run(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate the artefacts of a run folder."""
    with open_workspace(cfg) as workspace:
        return evaluate_stage(workspace)


def evaluate_stage(workspace: Workspace) -> dict[str, Any]:
    """Score all artefacts, paired with the control, the best baseline and the teacher."""
    data, folder = workspace.data, workspace.run_dir / "export"
    confidence = workspace.budget.confidence
    baseline_path = workspace.run_dir / BASELINE_ANSWERS
    votes = (workspace.run_dir / VOTES,) if human_files(workspace) else ()
    found = {role: folder / name for role, name in ARTEFACTS.items() if (folder / name).is_file()}
    needed = [folder / CONTROL, folder / STUDENT, baseline_path, *votes]
    missing = [str(path) for path in needed if not path.is_file()]
    if missing:
        raise UserError(
            f"Expected {missing[0]} but it is not there. Run `baseline`, `train` and `export` with "
            "this `run_dir=` first, or `pipeline`, which does it all."
        )

    def compute() -> dict[str, Any]:
        answers = {
            role: OnnxModel(p, num_threads=2).predict(data.test.served) for role, p in found.items()
        }
        through = {role: f"onnxruntime, {path.name}" for role, path in found.items()}
        if "teacher" not in answers:
            own = _teacher_answers(workspace)
            if own is not None:
                answers["teacher"] = own
                through["teacher"] = "the teacher itself, which does not export to ONNX"
        truth = data.test.truth
        kept = {"label": truth.labels, "index": data.test.indices}
        further = {"block": truth.blocks, "naive_error": truth.naive_error}
        kept |= {name: own for name, own in further.items() if own is not None}
        write_arrays(workspace.run_dir / TEST_LOGITS, kept | answers)
        scores = evaluate(
            answers,
            truth,
            workspace.scoring,
            references=_references(workspace, baseline_path, votes),
            measured_through=through,
            task=data.task,
            confidence=confidence,
        )
        before = None if data.old_test is None else _on_old_test(workspace, found, incumbent)
        return {"test_fingerprint": data.test_fingerprint, "old_test": before} | scores

    incumbent = None if data.old_test is None else incumbent_path(workspace)
    inputs = (*found.values(), baseline_path, *votes)
    if incumbent is not None and incumbent.is_file():  # what is missing is said when it is asked
        inputs = (*inputs, incumbent)
    if "teacher" not in found:
        inputs = (*inputs, workspace.run_dir / "teacher.json")
    return workspace.stage(
        "evaluate",
        compute,
        values={
            "data": data.fingerprint,
            "test": data.test_fingerprint,
            "confidence": confidence,
            "metric": workspace.scoring.metric,
            "processor": processor(),  # int8 may saturate on one and not on another
            "incumbent": None if incumbent is None else plain(workspace.cfg.incumbent),
        },
        inputs=inputs,
        outputs=(TEST_LOGITS,),
    )


def _on_old_test(
    workspace: Workspace, found: Mapping[str, Path], incumbent: Path | None
) -> OldTest:
    """Ask the files that may ship, and the model in production, what they say of the old world."""
    before = workspace.data.old_test
    assert before is not None
    files = {role: found[role] for role in MAY_SHIP if role in found}
    return on_old_test(
        {r: OnnxModel(p, num_threads=2).predict(before.served) for r, p in files.items()},
        None if incumbent is None else ask_incumbent(workspace, incumbent, before),
        before.truth,
        workspace.scoring,
        confidence=workspace.budget.confidence,
    )


def _references(workspace: Workspace, path: Path, votes: Sequence[Path]) -> References:
    """Read what the baselines, the incumbent and people answered."""
    with np.load(path, allow_pickle=False) as arrays:
        baselines = {name: arrays[name] for name in arrays.files}
    humans = None
    for file in votes:
        with np.load(file, allow_pickle=False) as arrays:
            humans = arrays["vote"]
    best = read_json(workspace.run_dir / BASELINE_SCORES)["best"]
    return References(best=best, baselines=baselines, humans=humans)


def _teacher_answers(workspace: Workspace) -> Any:
    from distill.training.labelling import ask_test

    answers = ask_test(load_teacher(workspace), workspace.data.test)
    return None if answers is None else workspace.data.in_units(answers, workspace.data.test)
