"""The reference statistics of a run: its validation images, and what each artefact says of them."""

from typing import Any

from distill.files import sha256, write_arrays
from distill.production.reference import (
    EMBEDDINGS,
    VERSION,
    column_statistics,
    embeddings,
    input_statistics,
    output_statistics,
    reference,
)
from distill.runtime import OnnxModel
from distill.verbs.run.workspace import Workspace


def reference_stage(workspace: Workspace, artefacts: list[str]) -> dict[str, Any]:
    """Describe the validation split, as monitoring will describe what production sees.

    Not the training split, on which a model is surer than it will ever be again, and not the test
    split, which decides.
    """
    data, confidence = workspace.data, workspace.budget.confidence
    paths = [workspace.run_dir / "export" / name for name in artefacts]

    def compute() -> dict[str, Any]:
        from distill.training.data.splits import chunks

        split = data.validation
        opened = {path: OnnxModel(path, num_threads=2) for path in paths}
        models = {
            path.name: {"sha256": sha256(path)}
            | output_statistics(
                model.predict(split.served),
                split.truth,
                data.task,
                workspace.scoring,
                confidence=confidence,
            )
            for path, model in opened.items()
        }
        own = {p.name: embeddings(m, split.served) for p, m in opened.items() if m.has_embedding}
        (workspace.run_dir / EMBEDDINGS).unlink(missing_ok=True)  # of an earlier configuration
        if own:
            write_arrays(workspace.run_dir / EMBEDDINGS, own)
        inputs = (
            input_statistics(chunks(split.served))
            if data.encoder is None
            else column_statistics(data.encoder.takes, split.served)
        )
        return {
            "split": "validation",
            "data": {"name": data.name, "sha256": data.fingerprint},
        } | reference(inputs, models, split.labels, data.task)

    values = {"data": data.fingerprint, "confidence": confidence, "schema_version": VERSION}
    values["metric"] = workspace.scoring.metric
    outputs = (EMBEDDINGS,) if workspace.cfg.embedding else ()
    inputs = tuple(paths)
    return workspace.stage("reference", compute, values=values, inputs=inputs, outputs=outputs)
