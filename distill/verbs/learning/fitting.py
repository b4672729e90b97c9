"""One training as a stage: fit, score at the best and the last epoch, keep the weights alone.

The best epoch is the last of its schedule, unless validation proves another better; where training
was stopped before the end, and where int8 is trained for, it is the highest on validation.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from distill.files import sha256, sha256_json, to_json, write_arrays, write_json
from distill.production.registry.connection import be_quick
from distill.statistics.class_metrics import score
from distill.statistics.metrics import fit_temperature
from distill.statistics.scoring import scoring_of
from distill.tasks import TaskKind
from distill.training.teachers.classes import class_columns
from distill.verbs.learning.networks import weights_path
from distill.verbs.run.own_code import sha256_of, with_own_code
from distill.verbs.run.ranks import agree
from distill.verbs.run.workspace import Workspace, is_terminal, plain

if TYPE_CHECKING:
    from distill.training.data.splits import Split

# On import Lightning asks for INFO, at which it lists hardware and advertises.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

HISTORY, MARKS = "history.json", "test_marks.npz"
RECIPE = ("optimizer", "scheduler", "trainer", "batch_size")
CONFIDENCE = 0.95  # with which an earlier epoch must be better than the last to be taken

Build = Callable[[dict[str, Any]], lightning.LightningModule]


def outputs_of(role: str) -> tuple[str, ...]:
    """What a role's training leaves."""
    names = ("best.pt", "last.pt", HISTORY, MARKS)
    return tuple(f"train/{role}/{name}" for name in names)


def fit_stage(
    workspace: Workspace,
    role: str,
    training: DictConfig,
    build: Build,
    values: dict[str, Any],
    *,
    seed: int,
    inputs: tuple[Path, ...] = (),
    num_views: int | None = None,
    taught: Callable[[], "Split | None"] = lambda: None,
    callbacks: Callable[[], Sequence[Callback]] = tuple,
) -> dict[str, Any]:
    """Train what `build` returns, once, and leave its weights alone beside the checkpoint.

    `values` have the `network` that it is, whose hash stands in the result, with that of the user's
    own code. `taught` makes what is
    shown in place of the training set, `callbacks` those that the training itself needs, beside
    the user's.
    """
    from distill.training import views

    values = values | {
        "data": workspace.data.fingerprint,
        "training": _training(training),
        "views": [plain(workspace.cfg.views), views.VERSION],
        "mixing": plain(workspace.cfg.mixing),
        "callbacks": plain(workspace.cfg.callbacks),
        "compile": workspace.cfg.compile,
    }
    recipe = sha256_json([with_own_code(values), [sha256(path) for path in inputs]])
    if workspace.data.is_numeric:  # marks are by the metric, and what is trained stays
        values |= {"metric": workspace.scoring.metric}

    def compute() -> dict[str, Any]:
        lightning.seed_everything(seed, verbose=False)
        OmegaConf.update(workspace.cfg, "role", role.replace("/", "_"))
        parts = {name: instantiate(training[name]) for name in ("optimizer", "scheduler")}
        trained = _fit(
            workspace,
            role,
            training,
            build(parts),
            recipe=recipe,
            seed=seed,
            num_views=num_views,
            taught=taught(),
            callbacks=callbacks(),
        )
        return {"network_sha256": sha256_of(values["network"])} | trained

    return workspace.stage(
        f"train/{role}",
        compute,
        values=values,
        inputs=inputs,
        outputs=outputs_of(role),
        together=True,
    )


def _training(training: DictConfig) -> dict[str, Any]:
    """Take the settings of a training; the fastest precision is that, whatever it is here.

    A folder that is carried to another processor would otherwise be trained again.
    """
    found = {part: plain(training[part]) for part in RECIPE}
    asked = OmegaConf.to_container(training.trainer, resolve=False)
    assert isinstance(asked, dict)
    if str(asked.get("precision")).startswith("${fastest_precision:"):
        found["trainer"]["precision"] = "fastest"
    return found


def _fit(
    workspace: Workspace,
    role: str,
    training: DictConfig,
    module: Any,
    *,
    recipe: str,
    seed: int,
    num_views: int | None,
    taught: "Split | None",
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    from distill.training.data.loading import BatchDataModule
    from distill.training.fit import fit, forget_other_recipe
    from distill.training.hardware import CompiledStudent
    from distill.training.models import num_parameters

    cfg, folder = workspace.cfg, workspace.run_dir / "train" / role
    data = BatchDataModule(
        workspace.data,
        batch_size=training.batch_size,
        views=instantiate(cfg.views),
        mixing=instantiate(cfg.mixing) or None,
        num_views=num_views,
        seed=seed,
        num_workers=cfg.loader_workers,
        taught=taught,
    )
    student = copy.deepcopy(module.student)  # what is scored and kept is never compiled
    hooked = bool(callbacks)  # into the student's forward: it validates as its weights alone do not
    compiled = cfg.compile and not hooked
    callbacks = [*map(instantiate, cfg.callbacks.values()), *callbacks]
    if compiled:
        callbacks.append(CompiledStudent())
    if workspace.leads:
        forget_other_recipe(folder, recipe)
    agree(None)  # the others look for checkpoints only now
    be_quick()
    fitted = fit(
        module,
        data,
        instantiate(training.trainer),
        folder,
        callbacks=callbacks,
        loggers=[instantiate(logger) for logger in cfg.logger.values()],
        show_bar=is_terminal() and workspace.leads,
    )
    if not workspace.leads:
        return {}
    last_epoch = len(fitted.history) - 1
    has_ended = not fitted.was_stopped or len(fitted.history) == training.trainer.max_epochs
    is_whole = has_ended and not hooked
    takes_last = fitted.best_epoch == last_epoch or (
        is_whole and not _is_proven_better(workspace, student, fitted.best, fitted.last)
    )
    result: dict[str, Any] = {
        "seed": seed,
        "num_parameters": num_parameters(student),
        "seconds": fitted.seconds,
        "best_epoch": last_epoch if takes_last else fitted.best_epoch,
        "last_epoch": last_epoch,
    }
    write_json(folder / HISTORY, fitted.history)
    states = {"last": fitted.last, "best": fitted.last if takes_last else fitted.best}
    return result | keep(workspace, student, role, states, workspace.data.classes)


def _is_proven_better(
    workspace: Workspace, model: Any, state: dict[str, Any], last: dict[str, Any]
) -> bool:
    """Tell whether validation proves an epoch better than the last one of its schedule.

    The highest of many figures is high by luck, too: the fewer rows validate, the more. Preferring
    the simpler choice unless another is beyond the error is Breiman et al., "Classification and
    Regression Trees", 1984, section 3.4.3.
    """
    from distill.training.fit import predict_logits

    data, marks = workspace.data, []
    scoring = scoring_of(data.task)  # the metric that decides must not change who has taught
    for weights in (state, last):
        model.load_state_dict(weights)
        answers = data.in_units(predict_logits(model, data.validation.inputs), data.validation)
        marks.append(scoring.marks(answers, data.validation.truth))
    found = scoring.compare(*marks, blocks=data.validation.truth.blocks, confidence=CONFIDENCE)
    return found.interval[0] > 0


def keep(
    workspace: Workspace,
    model: Any,
    role: str,
    states: dict[str, dict[str, Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Score a network's states on the test set and save them, with the temperature they want.

    Args:
        workspace: of the run.
        model: takes the states.
        role: whose it is.
        states: of the `last` and the `best` epoch; one and the same is scored once.
        classes: of the model.

    Returns:
        The scores, `test_at_last_epoch` and `test_at_best_epoch`.
    """
    from distill.training.fit import save_weights

    scores: dict[str, dict[str, Any]] = {}
    marks: dict[str, NDArray[Any]] = {}
    for epoch, state in states.items():
        if epoch == "best" and state is states["last"]:
            scores[epoch], marks[epoch] = scores["last"], marks["last"]
        else:
            model.load_state_dict(state)
            scores[epoch], marks[epoch] = _score_network(workspace, model, classes)
        content: dict[str, Any] = {"state_dict": state, "classes": list(classes)}
        content["temperature"] = scores[epoch].get("temperature", 1.0)
        content["units"] = workspace.data.units
        save_weights(content, weights_path(workspace.run_dir, role, epoch))
    write_arrays(workspace.run_dir / "train" / role / MARKS, marks)
    return {f"test_at_{epoch}_epoch": found for epoch, found in scores.items()}


def _score_network(
    workspace: Workspace, model: Any, classes: Sequence[str]
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Score a network, and mark each test sample."""
    from distill.training.fit import predict_logits

    data = workspace.data
    columns = class_columns(classes, data.classes, drop_classes=True)
    answers = {}
    for name, split in (("validation", data.validation), ("test", data.test)):
        outputs = predict_logits(model, split.inputs)
        outputs = outputs if columns is None else outputs[:, columns]
        answers[name] = data.in_units(outputs, split)
    scores = score_test(workspace, answers["test"], answers["validation"])
    return scores, workspace.scoring.marks(answers["test"], data.test.truth)


def score_test(
    workspace: Workspace,
    test: NDArray[np.floating],
    validation: NDArray[np.floating] | None = None,
    *,
    measured_through: str = "torch",
) -> dict[str, Any]:
    """Score answers to the test set; of classes also at the temperature that fits validation."""
    data, confidence = workspace.data, workspace.budget.confidence
    scores: dict[str, Any] = {"measured_through": measured_through}
    scores |= workspace.scoring.score(test, data.test.truth, confidence=confidence)
    if validation is not None and data.task.kind is TaskKind.CLASSIFICATION:
        temperature = fit_temperature(validation, data.validation.labels)
        given: dict[str, Any] = {"blocks": data.test.blocks, "confidence": confidence}
        scaled = score(test / temperature, data.test.labels, **given)
        scores |= {"temperature": temperature}
        scores |= {f"{name}_scaled": scaled[name] for name in ("nll", "ece")}
    return to_json(scores)
