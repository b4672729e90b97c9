"""The teacher and the control as ONNX files."""

from types import SimpleNamespace
from typing import cast

from omegaconf import DictConfig

from distill.budget import Budget, ParityBudget
from distill.verbs.references import export_reference_stage
from distill.verbs.workspace import Workspace


def test_an_exported_reference_depends_on_the_parity_that_it_was_held_to(tmp_path):
    asked = []
    budget = Budget(parity=ParityBudget(max_logit_std=0.01))
    workspace = SimpleNamespace(
        cfg=DictConfig({"teacher": {}, "student": {}}),
        run_dir=tmp_path,
        budget=budget,
        data=SimpleNamespace(fingerprint="x"),
        stage=lambda *_, values, **__: asked.append(values),
    )
    for role in ("teacher", "control"):
        export_reference_stage(cast(Workspace, workspace), role)
    assert [values["parity"]["max_logit_std"] for values in asked] == [0.01, 0.01]
