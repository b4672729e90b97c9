"""The teacher as a run left it: whom it consists of, each of them read back or opened."""

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from distill.errors import UserError, settings_of
from distill.files import sha256_json
from distill.verbs.learning.networks import load_network, weights_path
from distill.verbs.learning.views import check_views_of_teacher
from distill.verbs.run.own_code import own_code
from distill.verbs.run.workspace import Workspace, named_in_errors, plain

if TYPE_CHECKING:
    from distill.training.teachers.base import Teacher

TEACHER_FACTS = "train/teacher/teacher.json"


def load_teacher(workspace: Workspace) -> "Teacher":
    """Load the run's teacher as the `train teacher` stage has left it, its classes the data's.

    Raises:
        UserError: there is none yet, or it cannot answer for the data's classes.
    """
    from distill.training.teachers.ensemble import EnsembleTeacher

    cfg = workspace.cfg.teacher
    members, task = teacher_members(cfg), workspace.data.task
    teachers = [load_member(workspace, *member) for member in members.items()]
    if "members" not in cfg:
        return teachers[0]
    settings = [settings_name(role) for role in members]
    return EnsembleTeacher(teachers, plain(cfg.weights), task.answers, task.kind, settings)


def fingerprint_of(workspace: Workspace, teacher: "Teacher") -> str:
    """Tell by what a teacher is known: what it holds, and the user's own code that it runs."""
    code = own_code(plain(workspace.cfg.teacher))
    return sha256_json([teacher.fingerprint, code]) if code else teacher.fingerprint


def teacher_members(teacher: DictConfig) -> dict[str, DictConfig]:
    """Name the role of every network or source a teacher consists of: itself, or its members."""
    if "members" not in teacher:
        return {"teacher": teacher}
    return {f"teacher/{name}": member for name, member in teacher.members.items()}


def settings_name(role: str) -> str:
    """Name the part of the configuration that has the settings of a role."""
    return role.replace("teacher/", "teacher.members.")


def is_fitted(workspace: Workspace, member: DictConfig) -> bool:
    """Tell whether a teacher is an estimator that is fitted in the run."""
    name = "regressor" if workspace.data.is_numeric else "estimator"
    return member.get(name) is not None and member.get("path") is None


def _folder(workspace: Workspace, role: str, member: DictConfig) -> Path:
    """Tell where a source keeps what it fits: by other code of the user's own it is another."""
    folder = workspace.run_dir / "train" / role
    code = own_code(plain(member))
    return folder / f"code_{sha256_json(code)[:12]}" if code else folder


def load_member(workspace: Workspace, role: str, member: DictConfig) -> "Teacher":
    """Load what `teacher_members` names: weights of this run, or whatever the configuration says.

    Raises:
        UserError: it is missing, unusable, or does not go with the data or its views.
    """
    with settings_of("teacher", settings_name(role)):
        return _load_member(workspace, role, member)


def _load_member(workspace: Workspace, role: str, member: DictConfig) -> "Teacher":
    from distill.training.fit import load_weights
    from distill.training.teachers.classes import match_classes
    from distill.training.teachers.live import TorchTeacher

    if "network" not in member:
        folder = _folder(workspace, role, member)
        OmegaConf.to_container(member, throw_on_missing=True)  # a partial call leaves `???` out
        with named_in_errors(settings_name(role)):
            teacher = instantiate(member, _convert_="all")(workspace.data, folder)
        check_views_of_teacher(workspace, teacher)
        return teacher
    path = weights_path(workspace.run_dir, role)
    if not path.is_file():
        raise UserError(
            f"Expected the teacher's weights at {path} but there are none. Run `train teacher` in "
            "this run folder first, or give `teacher.checkpoint=` and run `train`."
        )
    teacher = TorchTeacher(load_network(workspace, member, path), load_weights(path)["classes"])
    return match_classes(
        teacher, workspace.data.classes, drop_classes=bool(member.get("drop_classes", False))
    )
