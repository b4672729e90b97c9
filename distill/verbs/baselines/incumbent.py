"""The model now in production, as a baseline: any ONNX file, asked on the same test set.

Read as a teacher of that kind is: its own input size and normalisation, its classes by name.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.deployment.evaluate import INCUMBENT
from distill.deployment.intake import Artefact, inspect, random_inputs
from distill.deployment.measurement import Effort
from distill.errors import UserError
from distill.files import sha256
from distill.verbs.exporting.measuring import NUM_INPUTS, configured, measure, measurement_values
from distill.verbs.run.workspace import Workspace, plain

if TYPE_CHECKING:
    from distill.training.data.splits import Split

log = logging.getLogger(__name__)

QUICK = Effort(cold_starts=0, processes=3, rounds=10, max_seconds=10)


def incumbent_path(workspace: Workspace) -> Path | None:
    """Find the file that `against=` names, or the registry's champion; None for none."""
    against = workspace.cfg.against
    if against == "champion":
        from distill.verbs.production.registry import champion_path

        return champion_path(workspace.cfg)
    return None if against is None else Path(against)


def incumbent_values(workspace: Workspace) -> dict[str, Any]:
    """Name all that a score of the incumbent depends on besides its file."""
    return {"incumbent": plain(workspace.cfg.incumbent), **measurement_values(workspace)}


def score_incumbent(workspace: Workspace, path: Path) -> tuple[dict[str, Any], NDArray[Any]]:
    """Score the incumbent on the test set and measure it on the target, quickly.

    Returns:
        Its entry among the baselines, and its answers to the test set, as of any baseline.

    Raises:
        UserError: see `ask_incumbent`.
    """
    from distill.training.baselines.scoring import kept_of

    artefact, data = inspect(path), workspace.data
    answers = ask_incumbent(workspace, path, data.test)
    confidence = workspace.budget.confidence
    quality = workspace.scoring.score(answers, data.test.truth, confidence=confidence)
    cost = {
        "measured_through": f"onnxruntime, {path.name}",
        "fit_seconds": None,
        "size_bytes": path.stat().st_size,
        **_latency(workspace, artefact),
    }
    facts = {"artefact": str(path), "sha256": sha256(path)}
    return {**quality, **cost, **facts}, kept_of(answers, data)


def ask_incumbent(workspace: Workspace, path: Path, split: "Split") -> NDArray[np.float32]:
    """Ask the incumbent about a split as it is, [N, C], numbers in their own units.

    Raises:
        UserError: the file is damaged, takes other inputs than the data's, or has other classes.
    """
    from distill.training.labelling import ask_test
    from distill.training.teachers.sources import onnx_teacher

    with _named(path):
        settings = plain(workspace.cfg.incumbent)
        model = onnx_teacher(workspace.data, workspace.run_dir, path=str(path), **settings)
        answers = ask_test(model, split)
    assert answers is not None
    return workspace.data.in_units(answers, split)


def _latency(workspace: Workspace, artefact: Artefact) -> dict[str, Any]:
    """Measure single calls on the target; None where it takes no latencies for a new file."""
    names = ("p50_latency_ms", "p95_latency_ms")
    target = configured(workspace, "target")
    if not hasattr(target, "num_threads"):
        log.info("incumbent: %s takes no latencies for a file of its own", target.name)
        return dict.fromkeys(names)
    inputs = workspace.data.validation.served[:NUM_INPUTS]
    if not artefact.takes(inputs):  # floats, or another size: what they show changes no latency
        shape = workspace.images.image_shape
        fixed = None not in artefact.input_shape[1:]
        inputs = random_inputs(
            artefact, NUM_INPUTS, workspace.cfg.seed, None if fixed else _shape(artefact, shape)
        )
    report = measure(workspace, target, [artefact.path], inputs, effort=QUICK, limits_ms={})
    (row,) = report.artefacts
    return {"target": target.name} | {name: getattr(row, name) for name in names}


def _shape(artefact: Artefact, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Fill the free dimensions of an input with the images' own."""
    height, width, channels = image_shape
    own = artefact.input_shape[1:]
    layout = (channels, height, width) if own[0] == channels else image_shape
    return tuple(size or image for size, image in zip(own, layout, strict=True))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say `incumbent` where a message of the same reader says `teacher`."""
    try:
        yield
    except UserError as error:
        parts = str(error).split(str(path))  # the file itself may be a teacher's
        said = str(path).join(part.replace("teacher", INCUMBENT) for part in parts)
        raise type(error)(f"The incumbent {path} (`against=`) cannot be asked. {said}") from error
