"""Networks of a run: built from the configuration, their weights read back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from distill.contract import check_classes
from distill.errors import UsageError, UserError
from distill.verbs.run.workspace import Workspace, named_in_errors, plain


def weights_path(run_dir: Path, role: str, epoch: str = "best") -> Path:
    """Where a role's weights lie: those of the epoch that is kept, the best, or of the last."""
    return run_dir / "train" / role / f"{epoch}.pt"


def build_student(workspace: Workspace) -> Any:
    """Build the untrained student for the data, preprocessing inside.

    `student.input_size` is ours, not the network's: images are resized to it first.
    """
    from distill.training.models import build_classifier
    from distill.training.table_models import build_table_network

    data, node = workspace.data, workspace.cfg.student
    if data.encoder is not None:
        with named_in_errors("student"):
            return build_table_network(
                instantiate(node), num_classes=len(data.classes), layout=data.encoder.layout
            )
    data = workspace.images
    mean, std = data.channel_statistics
    size = plain(node.get("input_size"))
    with named_in_errors("student"):
        return build_classifier(
            instantiate(OmegaConf.masked_copy(node, [k for k in node if k != "input_size"])),
            num_classes=len(data.classes),
            image_shape=data.image_shape,
            mean=mean,
            std=std,
            input_size=tuple(size) if size else None,
        )


def further(workspace: Workspace) -> dict[str, Any]:
    """Say what a student's files give beside the answer.

    Raises:
        UsageError: the head, or whether there is an embedding, is not as it must be.
    """
    if not isinstance(workspace.cfg.embedding, bool):
        raise UsageError(
            f"Expected `embedding` to be true or false but got {workspace.cfg.embedding!r}."
        )
    with named_in_errors("head"):
        head = instantiate(workspace.cfg.head) or None
    return {"head": head, "embedding": workspace.cfg.embedding}


def start_path(cfg: DictConfig, role: str) -> Path | None:
    """Find the weights that a training begins with; None for random ones.

    Args:
        cfg: of the run.
        role: student, for control and student, or teacher.

    Raises:
        UserError: there are none.
    """
    setting = "teacher_training.start_from" if role == "teacher" else "start_from"
    own = OmegaConf.select(cfg, setting)
    if own == "champion":
        from distill.verbs.production.registry import champion_weights

        return champion_weights(cfg, role)
    if own is None:
        return None
    path = Path(str(own))
    if not path.is_file():
        raise UserError(
            f"Expected weights of a {role} at `{setting}={path}` but there are none. Name a run's "
            f"train/{role}/best.pt, or `champion`."
        )
    return path


def starting_student(workspace: Workspace) -> Any:
    """Build the student as its training begins: with random weights, or with those it had.

    Raises:
        UserError: the weights are missing, of other classes, or of another network.
    """
    path = start_path(workspace.cfg, "student")
    return build_student(workspace) if path is None else load_student(workspace, path).train()


def build_teacher_network(workspace: Workspace, teacher: DictConfig, num_classes: int) -> Any:
    """Build the untrained network of a torch teacher, with its own preprocessing inside."""
    from distill.training.models import build_classifier
    from distill.training.table_models import build_table_network

    encoder = workspace.data.encoder
    if encoder is not None:
        with named_in_errors("teacher.network"):
            network = instantiate(teacher.network)
            return build_table_network(network, num_classes=num_classes, layout=encoder.layout)
    data = workspace.images
    mean, std = _configured_normalization(workspace, teacher) or data.channel_statistics
    size = plain(teacher.get("input_size"))
    with named_in_errors("teacher.network"):
        return build_classifier(
            instantiate(teacher.network),
            num_classes=num_classes,
            image_shape=data.image_shape,
            mean=mean,
            std=std,
            input_size=tuple(size) if size else None,
        )


def _configured_normalization(
    workspace: Workspace, teacher: DictConfig
) -> tuple[list[float], list[float]] | None:
    """Read a torch teacher's mean and std per channel; None where the configuration has none."""
    from distill.training.channels import per_channel

    mean, std = plain(teacher.get("mean")), plain(teacher.get("std"))
    if mean is None and std is None:
        return None
    return per_channel(mean, std, workspace.images.image_shape[2], "the teacher's network")


def starting_teacher(workspace: Workspace, teacher: DictConfig) -> Any:
    """Build a torch teacher's network as its training begins, likewise.

    Raises:
        UserError: the weights are missing, of other classes, or of another network.
    """
    path = start_path(workspace.cfg, "teacher")
    if path is None:
        return build_teacher_network(workspace, teacher, len(workspace.data.classes))
    return load_network(workspace, teacher, path, in_order=True).train()


def build_distillation(
    workspace: Workspace, student: Any, teacher: Any, losses: Any, *parts: Any, **named: Any
) -> Any:
    """Build the module that distils; losses on features learn their shapes from two samples."""
    import torch

    example = torch.from_numpy(workspace.data.train.inputs[:2])
    module = instantiate(workspace.cfg.module)
    named = objective(workspace) | named
    return module(student, teacher, losses, *parts, example=example, **named)


def objective(workspace: Workspace) -> dict[str, Any]:
    """Say what is asked of a network, as the modules that train it want to know it."""
    task = workspace.data.task
    return {"kind": task.kind, "quantiles": task.quantiles}


def load_student(workspace: Workspace, path: Path) -> Any:
    """Build the student and load its weights, in eval mode.

    Raises:
        UserError: the weights have other classes or are another network's.
    """
    from distill.training.fit import load_weights

    content = load_weights(path)
    if "classes" in content:
        check_classes(workspace.data.classes, content["classes"], f"the checkpoint {path}")
    _check_units(workspace, content, path)
    model = build_student(workspace)
    _load_state(model, content, path, "student", workspace.data.classes)
    return model.eval()


def existing(path: str) -> Path:
    """Return the path of a teacher's checkpoint, or say that there is none."""
    if not Path(path).is_file():
        raise UserError(f"Expected a checkpoint at `teacher.checkpoint={path}` but there is none.")
    return Path(path)


def load_network(
    workspace: Workspace, member: DictConfig, path: Path, *, in_order: bool = False
) -> Any:
    """Build a torch teacher's network and load weights into it, in eval mode.

    Takes our own weights (which know their classes) and bare state dictionaries, of the whole
    model or of the network inside it; `teacher.classes` names the classes of the latter.
    """
    from distill.training.fit import load_weights
    from distill.training.teachers.classes import class_columns

    content = load_weights(path)
    classes = teacher_classes(workspace, member, content)
    if in_order:
        check_classes(workspace.data.classes, classes, f"the checkpoint {path}")
    drop = bool(member.get("drop_classes", False))
    class_columns(classes, workspace.data.classes, drop_classes=drop)  # refused at once, or fine
    _check_units(workspace, content, path)
    model = build_teacher_network(workspace, member, len(classes))
    _load_state(model, content, path, "teacher", classes)
    configured = _configured_normalization(workspace, member)
    if configured:  # goes before what lies in the file
        model.set_normalization(*configured)
    return model.eval()


def teacher_classes(
    workspace: Workspace, member: DictConfig, content: dict[str, Any]
) -> tuple[str, ...]:
    """Name the classes of a torch teacher: its checkpoint's, the configured, or the data's."""
    configured = plain(member.get("classes"))
    named = content.get("classes") or configured or workspace.data.classes
    return tuple(map(str, named))  # a command line reads `[0,1,2]` as numbers


def _check_units(workspace: Workspace, content: dict[str, Any], path: Path) -> None:
    """Refuse weights whose answers mean other numbers; bare state dictionaries do not say."""
    expected, found = workspace.data.units, content.get("units")
    if found is None or (np.shape(found) == np.shape(expected) and np.allclose(found, expected)):
        return
    raise UserError(
        f"Expected weights in {path} that answer in these labels' mean and scale, {expected}, but "
        f"theirs are {found}. Use the data that they were trained on, or train again."
    )


def _load_state(
    model: Any, content: dict[str, Any], path: Path, role: str, classes: Sequence[str]
) -> None:
    state = content.get("state_dict", content)
    target = model if any(name.startswith("network.") for name in state) else model.network
    try:
        target.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        _check_width(state, target, path, role, classes)
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 300 else f"{reason[:300]}..."
        # Of a student they are the data's: it is asked for no others.
        otherwise = ", or its classes (`teacher.classes=[...]`)" if role == "teacher" else ""
        raise UserError(
            f"Expected weights of the {role} network in {path} but they do not fit: {reason} "
            f"Name the network they were made with (`{role}=...`){otherwise}."
        ) from error


def _check_width(
    state: dict[str, Any], target: Any, path: Path, role: str, classes: Sequence[str]
) -> None:
    """Refuse weights that do not fit for another number of classes alone, and say so."""
    own = {name: tuple(value.shape) for name, value in target.state_dict().items()}
    found = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    if own.keys() != found.keys():
        return
    other = [(own[name], found[name]) for name in own if own[name] != found[name]]
    expected = {(len(classes), *its[1:]) == mine for mine, its in other}
    widths = {its[0] for _, its in other if its}
    if expected != {True} or len(widths) != 1:
        return
    (width,) = widths
    names = ", ".join(classes[:10]) + ", ..." * (len(classes) > 10)
    advice = f"Name weights of another {role}, or train one."
    if role == "teacher" and width > len(classes):
        advice = (
            "Name its own, in its order, by `teacher.classes=[...]`, and set "
            "`teacher.drop_classes=true`."
        )
    raise UserError(
        f"Expected weights of a {role} for {len(classes)} classes ({names}) but {path} answers for "
        f"{width}. {advice}"
    )
