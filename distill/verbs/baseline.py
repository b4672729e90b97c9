"""`baseline`: what a model must beat, scored before any training; `annotate` asks people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from distill.deployment.device.machine import processor
from distill.deployment.evaluate import INCUMBENT
from distill.errors import UsageError
from distill.files import write_arrays
from distill.run_folder import BASELINE_ANSWERS
from distill.statistics.scoring import Scoring
from distill.verbs.baselines.humans import VOTES, human_files, score_people
from distill.verbs.baselines.incumbent import incumbent_path, incumbent_values, score_incumbent
from distill.verbs.run.workspace import Workspace, named_in_errors, open_workspace, plain


def run(cfg: DictConfig) -> dict[str, Any]:
    """Score what a model must beat, or draw a sample of the test set for people to label."""
    with open_workspace(cfg) as workspace:
        if cfg.action == "annotate":
            from distill.verbs.baselines.annotate import annotate_stage

            return annotate_stage(workspace)
        from distill.verbs.baselines.standing import known_teacher, show_standing

        result = baseline_stage(workspace)
        return result | {"prospect": show_standing(workspace, result, known_teacher(workspace))}


def baseline_stage(workspace: Workspace) -> dict[str, Any]:
    """Score each baseline, the incumbent and people; keep predictions for paired comparisons."""
    data, confidence = workspace.data, workspace.budget.confidence
    incumbent, humans = incumbent_path(workspace), human_files(workspace)
    outputs = (BASELINE_ANSWERS, VOTES) if humans else (BASELINE_ANSWERS,)

    def compute() -> dict[str, Any]:
        from distill.training.baselines.scoring import score_baselines

        asked = configured_baselines(workspace)
        scoring = workspace.scoring
        scores, answers = score_baselines(data, asked, scoring, confidence=confidence)
        if incumbent is not None:
            scores[INCUMBENT], answers[INCUMBENT] = score_incumbent(workspace, incumbent)
        write_arrays(workspace.run_dir / BASELINE_ANSWERS, answers)
        best = best_of(scoring, scores)
        marks = {name: scoring.marks(own, data.test.truth) for name, own in answers.items()}
        blocks = data.test.blocks
        for name, score in scores.items():
            score["gain_vs_best"] = scoring.compare(
                marks[name], marks[best], blocks=blocks, confidence=confidence
            )
        people = None
        if humans:
            people, vote = score_people(workspace, answers[best])
            write_arrays(workspace.run_dir / VOTES, {"vote": vote, "index": data.test.indices})
        return {
            "best": best,
            "measured_through": scores[best]["measured_through"],
            "confidence": confidence,
            "metric": scoring.metric,
            "figures": scoring.figures,
            "num_samples": len(data.test),
            "baselines": scores,
            "humans": people,
            "incumbent": scores.get(INCUMBENT),
        }

    values = {
        "data": data.fingerprint,
        "baselines": plain(workspace.of_task("baselines")),
        "confidence": confidence,
        "metric": workspace.scoring.metric,
        "humans": [*map(str, humans), workspace.cfg.humans_cost_per_label],
        "processor": processor(),  # their latencies are this machine's, whatever the target is
    }
    inputs = (*humans, *_files(workspace))
    if incumbent is not None:
        values |= incumbent_values(workspace)
        inputs = (*inputs, incumbent)
    existing = tuple(path for path in inputs if path.is_file())  # what is missing is said below
    return workspace.stage("baseline", compute, values=values, inputs=existing, outputs=outputs)


def best_of(scoring: Scoring, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the best of some scores by the metric; of equal ones the first."""
    sign = -1 if scoring.is_error else 1
    return max(scores, key=lambda name: sign * scores[name][scoring.metric].estimate)


def configured_baselines(workspace: Workspace) -> dict[str, Any]:
    """Build the configured baselines, by name.

    Raises:
        UsageError: there is none, one lacks a value, or takes the incumbent's name.
    """
    nodes = workspace.of_task("baselines")
    if not nodes or INCUMBENT in nodes:
        raise UsageError(
            f"Expected `baselines` with names besides `{INCUMBENT}` but got "
            f"{', '.join(map(str, nodes)) or 'none'}. Choose some, such as "
            "`baselines=[majority_class,logistic_regression]`."
        )
    OmegaConf.to_container(nodes, throw_on_missing=True)  # a partial call leaves `???` out
    built = {}
    for name, node in nodes.items():
        with named_in_errors(f"baselines.{name}"):
            built[str(name)] = instantiate(node, _convert_="all")
        _check_fits(workspace, str(name), built[str(name)])
    return built


def _check_fits(workspace: Workspace, name: str, baseline: Any) -> None:
    kind = workspace.data.task.kind
    kinds = getattr(baseline, "kinds", [kind])
    if kind not in kinds:
        raise UsageError(
            f"Expected baselines for {kind.replace('_', ' ')} but `baselines.{name}` is one of "
            f"{', '.join(sorted(kinds))}. Leave it out of `baselines=[...]`; "
            "`baselines=by_task` takes those that fit."
        )


def _files(workspace: Workspace) -> tuple[Path, ...]:
    """List the files that baselines read."""
    given = (getattr(one, "keywords", {}) for one in configured_baselines(workspace).values())
    return tuple(Path(v) for keywords in given for v in keywords.values() if isinstance(v, str))
