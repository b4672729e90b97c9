"""In which space all that rows are is compared at once: a model's own features, or its answers.

Penultimate features hold what the model sees of an input, also what does not move its answers yet.
Knows the world and arrays; knows nothing of tests.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.production.monitoring.drift import MAX_POINTS
from distill.production.monitoring.world import World
from distill.production.reference import embeddings
from distill.runtime import EMBEDDING, OnnxModel


@dataclass(frozen=True, kw_only=True)
class Space:
    """Rows as points.

    Attributes:
        name: embedding or answers.
        reference: [N, D].
        now: [n, D].
        told: which rows these are, and why no others, for people.
    """

    name: str
    reference: NDArray[np.floating]
    now: NDArray[np.floating]
    told: str


def space_of(world: World, answers: NDArray[np.floating], inputs: NDArray[Any] | None) -> Space:
    """Run the artefact on a sample of the inputs, if it gives its features; else take its answers.

    Args:
        world: that the model was made in.
        answers: its own now, [n, K]; numbers of several units are divided by theirs.
        inputs: of the same rows, [n, ...]; None where the log does not keep all of them.

    Raises:
        ModelError: the artefact does not take the inputs.
    """
    model = OnnxModel(world.artefact)
    why_not = _why_not(world, inputs, has_embedding=model.has_embedding)
    if why_not is None:
        assert world.embeddings is not None
        assert inputs is not None
        now = embeddings(model, inputs)
        told = (
            f"embeddings, the model's penultimate features, of {len(now):,} logged inputs beside "
            f"those of {len(world.embeddings):,} validation rows"
        )
        return Space(name=EMBEDDING, reference=world.embeddings, now=now, told=told)
    counts = [min(len(rows), MAX_POINTS) for rows in (answers, world.answers)]
    asks = world.contract.asks
    unit = asks.of_answers(asks.unit.tolist()) if world.scoring.is_error else 1.0
    what = "answers" if world.scoring.is_error else "answers (logits)"
    told = (
        f"{what} of {counts[0]:,} rows beside those of {counts[1]:,} test rows, not embeddings: "
        f"{why_not}"
    )
    return Space(name="answers", reference=world.answers / unit, now=answers / unit, told=told)


def _why_not(world: World, inputs: Any, *, has_embedding: bool) -> str | None:
    if not has_embedding:
        return "the artefact gives none (`embedding=true` when it is exported)"
    if world.embeddings is None:
        return "those of its reference rows were not kept (run its `pipeline` again)"
    return "the log does not keep all inputs (`log.inputs=keep`)" if inputs is None else None
