"""`train`: the teacher, the control (the student on labels alone) and the distilled student."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from distill.contract import check_classes
from distill.errors import UsageError, UserError
from distill.files import sha256, sha256_json, write_json
from distill.training.modules import make_schedule
from distill.verbs.workspace import Workspace, is_terminal, open_workspace, plain

# On import Lightning asks for INFO, at which it lists hardware and advertises.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

HISTORY = "history.json"
ROLES = ("teacher", "control", "student")


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train one role, or all three in order."""
    with open_workspace(cfg) as workspace:
        check_configuration(workspace)
        roles = ROLES if cfg.action == "all" else (cfg.action,)
        results = {role: train_stage(workspace, role) for role in roles}
        write_json(workspace.run_dir / "train.json", results)
        return results


def check_configuration(workspace: Workspace) -> None:
    """Build everything that training needs once, so that a mistake shows before the first epoch."""
    cfg = workspace.cfg
    for role, training in (("teacher", cfg.teacher_training), ("student", cfg)):
        model = build_model(workspace, role)
        with named_in_errors("optimizer"):
            optimizer = instantiate(training.optimizer)(model.parameters())
        with named_in_errors("scheduler"):
            scheduler = instantiate(training.scheduler)
            if scheduler is not None:
                make_schedule(scheduler, optimizer, total_steps=100)
        with named_in_errors("trainer"):
            instantiate(training.trainer)(logger=False, enable_checkpointing=False)
    for group in ("loss", "views", "module", "quantize", "target"):
        with named_in_errors(group):
            instantiate(cfg[group])
    if cfg.teacher.checkpoint is not None:
        load_model(workspace, "teacher", _existing(cfg.teacher.checkpoint))


@contextmanager
def named_in_errors(group: str) -> Iterator[None]:
    """Turn a class's refusal of its arguments into a message that names the config group."""
    try:
        yield
    except (TypeError, ValueError, MisconfigurationException, AttributeError) as error:
        raise UsageError(
            f"Expected `{group}` to be usable as configured but it is refused: {error}. "
            f"See its values with `--cfg job -p {group}`."
        ) from error


def weights_path(run_dir: Path, role: str, epoch: str = "best") -> Path:
    """Where a role's weights lie: those of the best epoch on validation, or of the last."""
    return run_dir / "train" / role / f"{epoch}.pt"


def train_stage(workspace: Workspace, role: str) -> dict[str, Any]:
    """Train one role (or load the teacher), and leave its weights alone beside the checkpoint."""
    cfg, run_dir = workspace.cfg, workspace.run_dir
    training = cfg.teacher_training if role == "teacher" else cfg
    given = cfg.teacher.checkpoint if role == "teacher" else None
    parts = ("optimizer", "scheduler", "trainer", "batch_size")
    values = {
        "data": workspace.data.fingerprint,
        "network": plain(cfg.teacher.network if role == "teacher" else cfg.student),
        "training": {part: plain(training[part]) for part in parts},
        "views": plain(cfg.views),
        "callbacks": plain(cfg.callbacks),
        "seed": cfg.seed,
    }
    inputs: tuple[Path, ...] = ()
    if role == "student":
        teacher = weights_path(run_dir, "teacher")
        if not teacher.is_file():
            raise UserError(
                f"Expected the teacher's weights at {teacher} but there are none. Run `train "
                "teacher` in this run folder first, or give `teacher.checkpoint=` and run `train`."
            )
        inputs = (teacher,)
        values |= {"losses": plain(cfg.loss), "module": plain(cfg.module)}
        values["teacher"] = plain(cfg.teacher.network)
    if given is not None:
        values, inputs = {k: values[k] for k in ("data", "network")}, (_existing(given),)

    def compute() -> dict[str, Any]:
        if given is not None:
            return _load_teacher(workspace, Path(given))
        return _train(workspace, role, training, sha256_json([values, [sha256(i) for i in inputs]]))

    outputs = tuple(f"train/{role}/{name}" for name in ("best.pt", "last.pt", HISTORY))
    return workspace.stage(f"train/{role}", compute, values=values, inputs=inputs, outputs=outputs)


def _train(workspace: Workspace, role: str, training: DictConfig, recipe: str) -> dict[str, Any]:
    from distill.training.data.images import ImageDataModule
    from distill.training.fit import fit
    from distill.training.models import num_parameters
    from distill.training.modules import SupervisedModule
    from distill.training.teachers import TorchTeacher

    cfg, data = workspace.cfg, workspace.data
    OmegaConf.update(cfg, "role", role)
    lightning.seed_everything(cfg.seed, verbose=False)
    model = build_model(workspace, role)
    parts = {
        "optimizer": instantiate(training.optimizer),
        "scheduler": instantiate(training.scheduler),
    }
    if role == "student":
        teacher = load_model(workspace, "teacher")
        losses = instantiate(cfg.loss, _convert_="all")
        module = instantiate(cfg.module)(model, TorchTeacher(teacher), losses, **parts)
    else:
        module = SupervisedModule(model, **parts)
    views = instantiate(cfg.views)
    fitted = fit(
        module,
        ImageDataModule(data, batch_size=training.batch_size, views=views, seed=cfg.seed),
        instantiate(training.trainer),
        workspace.run_dir / "train" / role,
        recipe=recipe,
        callbacks=[instantiate(callback) for callback in cfg.callbacks.values()],
        loggers=[instantiate(logger) for logger in cfg.logger.values()],
        show_bar=is_terminal(),
    )
    result: dict[str, Any] = {
        "num_parameters": num_parameters(model),
        "seconds": fitted.seconds,
        "best_epoch": fitted.best_epoch,
        "last_epoch": len(fitted.history) - 1,
    }
    write_json(workspace.run_dir / "train" / role / HISTORY, fitted.history)
    for epoch, state in (("last", fitted.last), ("best", fitted.best)):
        model.load_state_dict(state)
        _save_weights(workspace, role, model, epoch)
        result[f"test_at_{epoch}_epoch"] = _score_on_test(workspace, model)
    return result


def _load_teacher(workspace: Workspace, path: Path) -> dict[str, Any]:
    from distill.training.models import num_parameters

    model = load_model(workspace, "teacher", path)
    for epoch in ("last", "best"):
        _save_weights(workspace, "teacher", model, epoch)
    write_json(workspace.run_dir / "train" / "teacher" / HISTORY, [])
    scores = _score_on_test(workspace, model)
    return {
        "num_parameters": num_parameters(model),
        "loaded_from": str(path),
        "test_at_best_epoch": scores,
        "test_at_last_epoch": scores,
    }


def build_model(workspace: Workspace, role: str) -> Any:
    """Build the untrained network of a role for the data, preprocessing inside."""
    from distill.training.models import build_classifier

    cfg, data = workspace.cfg, workspace.data
    mean, std = data.channel_statistics
    with named_in_errors("teacher.network" if role == "teacher" else "student"):
        return build_classifier(
            instantiate(cfg.teacher.network if role == "teacher" else cfg.student),
            num_classes=len(data.classes),
            image_shape=data.image_shape,
            mean=mean,
            std=std,
        )


def load_model(workspace: Workspace, role: str, path: Path | None = None) -> Any:
    """Build a role's network and load its weights, in eval mode.

    Takes our own weights (which know their classes) and bare state dictionaries, of the whole
    model or of the network inside it.

    Raises:
        UserError: the weights have other classes or are another network's.
    """
    from distill.training.fit import load_weights

    path = path or weights_path(workspace.run_dir, role)
    model = build_model(workspace, role)
    content = load_weights(path)
    if "classes" in content:
        check_classes(workspace.data.classes, content["classes"], f"the checkpoint {path}")
    state = content.get("state_dict", content)
    target = model if any(name.startswith("network.") for name in state) else model.network
    try:
        target.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"Expected weights of the {role} network in {path} but they do not fit: {reason} "
            f"Name the network they were made with (`{role}=...`)."
        ) from error
    return model.eval()


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise UserError(f"Expected a checkpoint at `teacher.checkpoint={path}` but there is none.")
    return Path(path)


def _save_weights(workspace: Workspace, role: str, model: Any, epoch: str) -> None:
    from distill.training.fit import save_weights

    content = {"state_dict": model.state_dict(), "classes": list(workspace.data.classes)}
    save_weights(content, weights_path(workspace.run_dir, role, epoch))


def _score_on_test(workspace: Workspace, model: Any) -> dict[str, Any]:
    from distill.metrics import score
    from distill.training.fit import predict_logits

    test = workspace.data.test
    scores = score(
        predict_logits(model, test.images), test.labels, confidence=workspace.budget.confidence
    )
    return {"measured_through": "torch", **scores}
