"""The stages of a pipeline in their order, from the baseline to the verdict."""

from typing import Any

from distill.deployment.report.pipeline import PipelineResults
from distill.verbs.baseline import baseline_stage
from distill.verbs.baselines.standing import known_teacher, show_standing
from distill.verbs.evaluate import evaluate_stage
from distill.verbs.export import export_student
from distill.verbs.exporting.artefacts import ARTEFACTS, MAY_SHIP, STUDENT
from distill.verbs.exporting.measuring import NUM_INPUTS, benchmark_stage, compatibility_stage
from distill.verbs.exporting.reference import reference_stage
from distill.verbs.exporting.references import export_reference_stage
from distill.verbs.learning.elsewhere import warnings_about_test_set
from distill.verbs.learning.networks import weights_path
from distill.verbs.learning.roles import ROLES, train_roles
from distill.verbs.run.workspace import Workspace
from distill.verbs.stages.backtest import backtest_stage
from distill.verbs.stages.verdict import facts, over_seeds, verdict_stage


def all_stages(workspace: Workspace, *, is_attempt: bool = False) -> dict[str, Any]:
    """Run what is not done yet, and return the verdict.

    An attempt is one of a search, which has shown how things stand, and which decides as it did
    when it goes through its attempts again.
    """
    baseline = baseline_stage(workspace)
    if not is_attempt:
        show_standing(workspace, baseline, known_teacher(workspace))
    training = train_roles(workspace, ROLES)
    backtest = backtest_stage(workspace)
    for role in ("teacher", "control"):
        export_reference_stage(workspace, role)
    export = export_student(workspace, weights_path(workspace.run_dir, "student"))
    evaluation = evaluate_stage(workspace)
    folder = workspace.run_dir / "export"
    artefacts = {role: name for role, name in ARTEFACTS.items() if role in evaluation["models"]}
    artefacts = {role: name for role, name in artefacts.items() if (folder / name).is_file()}
    # The student comes first: it is the one with an A/A control beside it.
    order = sorted(artefacts.values(), key=lambda name: name != STUDENT)
    inputs = workspace.data.validation.served[:NUM_INPUTS]
    shippable = [artefacts[role] for role in MAY_SHIP if role in artefacts]
    reference_stage(workspace, shippable)
    paths = [folder / name for name in order]
    benchmark = benchmark_stage(
        workspace, paths, inputs, gated=shippable, measures_again=not is_attempt
    )
    shipped = [folder / name for name in shippable]
    compatibility = compatibility_stage(workspace, shipped, inputs)
    results = PipelineResults(
        name=workspace.cfg.name,
        baseline=baseline,
        training={role: training[role] for role in ROLES},
        over_seeds=over_seeds(training["over_seeds"], workspace),
        export=export,
        evaluation=evaluation,
        benchmark=benchmark,
        artefacts=artefacts,
        compatibility=compatibility,
        facts=facts(workspace, export, evaluation),
        warnings=(*workspace.data.warnings, *warnings_about_test_set(workspace, training)),
        backtest=backtest,
    )
    return verdict_stage(workspace, results)
