"""Candidates of one float32 model, made, asked and timed: every figure is of the file itself.

A recipe that fails is a candidate with its reason. Knows nothing of which candidate to take.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.deployment.parity import measure_parity
from distill.deployment.quantize.choice import Candidate, Limits, agrees, is_accurate
from distill.deployment.quantize.graph import structure
from distill.deployment.quantize.recipes import Recipe, Source
from distill.errors import UserError, full_disk
from distill.files import sha256
from distill.runtime import OnnxModel
from distill.statistics.metrics import Estimate
from distill.statistics.scoring import Scoring, Truth

Measure = Callable[[Sequence[Path]], dict[str, Estimate]]


@dataclass(kw_only=True)
class Trials:
    """What was tried so far, in order.

    Attributes:
        source: the float32 model.
        folder: of the candidates' files, `<recipe>.onnx`.
        inputs: of the validation set, images [N, H, W, C] or records [N].
        truth: likewise.
        scoring: of the task.
        answers: of the model that must not be dropped from, [N, C]; None for `source` itself.
        limits: that a candidate has to hold.
        confidence: of every interval.
        measure: times files on the target, interleaved, and returns by file name each one's ratio
            to the first.
        say: told what is being done.
    """

    source: Source
    folder: Path
    inputs: NDArray[Any]
    truth: Truth
    scoring: Scoring
    answers: NDArray[np.floating] | None
    limits: Limits
    confidence: float
    measure: Measure
    say: Callable[[str], None]
    found: dict[str, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._float32 = OnnxModel(self.source.path, num_threads=2).predict(self.inputs)
        if self.answers is None:
            self.answers = self._float32
        self._contents: dict[str, str] = {}
        self._timed: dict[str, tuple[str, Estimate]] = {}

    def path(self, recipe: str) -> Path:
        """Where a candidate's file lies."""
        return self.folder / f"{recipe}.onnx"

    def make(
        self,
        name: str,
        recipe: Recipe,
        *,
        base: str | None = None,
        excluded: tuple[str, ...] = (),
    ) -> Candidate:
        """Make a candidate's file and ask it about the validation set."""
        self.say(f"{name}: quantising, and asking {len(self.inputs)} validation samples")
        candidate = Candidate(recipe=name, precision=recipe.precision, base=base, excluded=excluded)
        path = self.path(name)
        try:
            recipe.make(self.source, path)
            answers = OnnxModel(path, num_threads=2).predict(self.inputs)
            candidate = self._judged(candidate, path, answers)
        except Exception as error:  # onnxruntime's quantiser has no common base for its errors
            if full_disk(error):
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            candidate = replace(candidate, reason=reason)
            path.unlink(missing_ok=True)
        self.found[name] = candidate
        return candidate

    def error(self, recipe: Recipe, num_samples: int = 512) -> float:
        """Mean square error of a recipe's answers to a few samples, over their variance.

        Infinite for a recipe that cannot be made: its layers are then given back to float first.
        """
        path = self.source.prepared.with_name("probe.onnx")
        try:
            recipe.make(self.source, path)
            answers = OnnxModel(path, num_threads=2).predict(self.inputs[:num_samples])
        except Exception as error:  # as in `make`
            if full_disk(error):
                raise
            return float("inf")
        return measure_parity(self._float32[:num_samples], answers).logit_std ** 2

    def skip(self, name: str, recipe: Recipe, reason: str) -> None:
        """Keep in mind why a recipe was not tried."""
        self.found[name] = Candidate(recipe=name, precision=recipe.precision, reason=reason)

    def time(self) -> None:
        """Time all candidates that are not yet, one file of each structure."""
        new = [c for c in self.found.values() if c.reason is None and c.latency_ratio is None]
        structures = {c.recipe: structure(self.path(c.recipe)) for c in new}
        first: dict[str, str] = {}
        for name, found in structures.items():
            if found not in self._timed:
                first.setdefault(found, name)
        if first:
            self.say(f"timing float32, {', '.join(first.values())}")
            paths = [self.source.path, *map(self.path, first.values())]
            ratios = self.measure(paths)
            for found, name in first.items():
                self._timed[found] = name, ratios[self.path(name).name]
        for candidate in new:
            name, ratio = self._timed[structures[candidate.recipe]]
            same = None if name == candidate.recipe else name
            self.found[candidate.recipe] = replace(candidate, latency_ratio=ratio, latency_of=same)

    def _judged(self, candidate: Candidate, path: Path, answers: NDArray) -> Candidate:
        content = sha256(path)
        twin = self._contents.setdefault(content, candidate.recipe)
        if twin != candidate.recipe:
            return replace(candidate, reason=f"the same file as {twin}")
        if not np.isfinite(answers).all():
            raise UserError("some answers are infinite or no numbers")
        assert self.answers is not None
        scoring, truth = self.scoring, self.truth
        drop = scoring.compare(
            scoring.marks(self.answers, truth),
            scoring.marks(answers, truth),
            blocks=truth.blocks,
            confidence=self.confidence,
        )
        same = scoring.agreement(
            answers, self._float32, blocks=truth.blocks, confidence=self.confidence
        )
        accurate = is_accurate(self.limits, drop)
        return replace(
            candidate,
            accuracy_drop=drop,
            agreement=same,
            logit_std=measure_parity(self._float32, answers).logit_std,
            size_bytes=path.stat().st_size,
            accurate=accurate,
            holds=accurate and agrees(self.limits, same),
        )
