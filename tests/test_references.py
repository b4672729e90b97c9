"""The teacher and the control as ONNX files."""

import errno
from types import SimpleNamespace
from typing import cast

import pytest
from omegaconf import DictConfig

from distill.budget import Budget, ParityBudget
from distill.errors import UserError
from distill.files import write_bytes
from distill.verbs.exporting import references
from distill.verbs.exporting.references import export_reference_stage
from distill.verbs.run.workspace import Workspace


def workspace(folder, stage):
    own = SimpleNamespace(
        cfg=DictConfig({"teacher": {}, "student": {}}),
        run_dir=folder,
        budget=Budget(parity=ParityBudget(max_logit_std=0.01)),
        data=SimpleNamespace(fingerprint="x"),
        stage=stage,
    )
    return cast(Workspace, own)


def test_an_exported_reference_depends_on_the_parity_that_it_was_held_to(tmp_path):
    asked = []
    for role in ("teacher", "control"):
        own = workspace(tmp_path, lambda *_, values, **__: asked.append(values))
        export_reference_stage(own, role)
    assert [values["parity"]["max_logit_std"] for values in asked] == [0.01, 0.01]


def test_a_teacher_is_asked_as_it_is_where_it_does_not_export_but_not_where_there_is_no_room(
    tmp_path, monkeypatch
):
    def refused(*_):
        raise UserError("Expected a deterministic graph")

    def full(own, model, path):
        monkeypatch.setattr("os.replace", no_room)
        write_bytes(path, b"x")

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(references, "_reference_model", lambda *_: None)
    own = workspace(tmp_path, lambda name, compute, **_: compute())
    monkeypatch.setattr(references, "export_network", refused)
    assert export_reference_stage(own, "teacher") == {
        "artefact": None,
        "why": "Expected a deterministic graph",
    }
    monkeypatch.setattr(references, "export_network", full)
    with pytest.raises(UserError, match="the disk is full"):
        export_reference_stage(own, "teacher")
