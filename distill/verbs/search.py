"""`search`: the cheapest student that holds a budget, out of a space of candidates."""

from typing import Any

from omegaconf import DictConfig

from distill.budget import Outcome
from distill.deployment.search.plan import Plan
from distill.deployment.search.record import Entry
from distill.errors import UsageError
from distill.tasks import TaskKind
from distill.verbs.run.workspace import OUTPUTS, open_workspace


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure all candidates untrained, train the likely ones a little, and the best in full."""
    with open_workspace(cfg, trains=True) as workspace:
        # What trains takes seconds to import: data that are not there are told before.
        from distill.verbs.baseline import baseline_stage
        from distill.verbs.baselines.standing import known_teacher, show_standing
        from distill.verbs.exporting.measuring import configured
        from distill.verbs.exporting.preflight import preflight_stage
        from distill.verbs.learning.configuration import check_configuration
        from distill.verbs.learning.soft_labels import soft_labels_stage
        from distill.verbs.learning.store import uses_store
        from distill.verbs.learning.teacher import teacher_stage
        from distill.verbs.searching.candidates import read_candidates, workspaces
        from distill.verbs.searching.ending import finish
        from distill.verbs.searching.progress import show_preflight
        from distill.verbs.searching.race import Race
        from distill.verbs.searching.rungs import floors_stage

        if workspace.data.task.kind is not TaskKind.CLASSIFICATION:
            raise UsageError(
                f"Expected classes to search a student for but {workspace.data.name} asks for "
                f"{OUTPUTS[workspace.data.task.kind]}: what short trainings promise is told from "
                "accuracies alone. Run `pipeline` with a student of your choice."
            )
        plan: Plan = configured(workspace, "search")
        plan.epochs(cfg.trainer.max_epochs)
        candidates = read_candidates(workspace, plan.max_candidates)
        own = workspaces(workspace, candidates)
        check_configuration(next(iter(own.values())))
        entries = [
            Entry(
                name=found.candidate, student=candidates[found.candidate].student, preflight=found
            )
            for found in preflight_stage(workspace, own)
        ]
        for entry in entries:
            if entry.preflight.outcome is Outcome.FAIL:
                entry.dropped = f"preflight: {entry.preflight.misses}"
        show_preflight(workspace, entries)
        race = Race(workspace, plan, candidates, own, entries)
        if race.survivors and race.may_train():
            show_standing(workspace, baseline_stage(workspace), known_teacher(workspace))
            teacher_stage(workspace)
            if uses_store(workspace):
                soft_labels_stage(workspace)
            race.limits, race.references = floors_stage(workspace)
            race.train_rungs()
            race.train_in_full()
        return finish(race)
