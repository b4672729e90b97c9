"""A search under way: who is trained, for how long, and who is dropped; every step is a stage."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.budget import Outcome
from distill.deployment.search.outlook import Floor, Outlook, Trained, outlooks
from distill.deployment.search.plan import Plan
from distill.deployment.search.record import Entry, Rung, accuracy_is_missing
from distill.deployment.search.selection import beaten, dropped, next_attempt
from distill.deployment.search.space import Candidate
from distill.statistics.resampling import share
from distill.verbs.exporting.preflight import STAGE as PREFLIGHT
from distill.verbs.run.workspace import Workspace
from distill.verbs.searching.attempts import ATTEMPTS, attempt, seconds_spent
from distill.verbs.searching.durations import seconds_of_an_attempt
from distill.verbs.searching.progress import show_rung
from distill.verbs.searching.rungs import on_validation, rung_stage, trained


@dataclass
class Race:
    """A search under way; all that it decides follows from what its stages left.

    Attributes:
        workspace: of the search.
        plan: its settings.
        candidates: by name.
        own: each candidate's workspace.
        entries: what is known of each, the cheapest first.
        limits: on accuracy, as they show on validation.
        references: accuracy on validation of `teacher` and `baseline`.
        beaten: candidates that a cheaper one was ahead of, trained as briefly.
        rungs_done: the short trainings so far, as rung and slug.
        stopped: why it ended before all was tried; None where it did not.
        is_training: whether anything has been trained, the teacher first of all.
    """

    workspace: Workspace
    plan: Plan
    candidates: dict[str, Candidate]
    own: dict[str, Workspace]
    entries: list[Entry]
    limits: list[Floor] = field(default_factory=list)
    references: dict[str, Any] = field(default_factory=dict)
    beaten: set[str] = field(default_factory=set)
    rungs_done: set[tuple[str, str]] = field(default_factory=set)
    stopped: str | None = None
    is_training: bool = False

    @property
    def epochs(self) -> int:
        """Of a full training."""
        return self.workspace.cfg.trainer.max_epochs

    @property
    def survivors(self) -> list[Entry]:
        """Those that preflight let pass, the cheapest first."""
        return [e for e in self.entries if e.preflight.outcome is not Outcome.FAIL]

    @property
    def seconds_left(self) -> float:
        """Of `search.max_minutes`, at this point of the search.

        What an earlier sitting did after it does not count: gone through again, a search decides
        as it did.
        """
        return 60 * self.plan.max_minutes - seconds_spent(self.workspace.run_dir, self._is_before)

    def _is_before(self, manifest: Path) -> bool:
        if not self.is_training:
            return manifest.parts == ("manifests", f"{PREFLIGHT}.json")
        match manifest.parts:
            case (folder, slug, *_) if folder == ATTEMPTS:
                return any(e.attempt and self.candidates[e.name].slug == slug for e in self.entries)
            case (_, "train", rung, _) if rung.startswith("rung_"):
                return (rung, manifest.stem) in self.rungs_done
        return True

    def has_time(self, what: str, expected: float = 0.0) -> bool:
        """Tell whether so many seconds are left; if not, keep in mind before what it ended."""
        if self.seconds_left > expected:
            return True
        self.stopped = f"the time was up before {what}"
        return False

    def may_train(self) -> bool:
        """Tell whether an attempt could end in time, before anything is trained for it."""
        expected = self._seconds_of_an_attempt(self.survivors)
        self.is_training = self.has_time("the teacher was trained", expected)
        if not self.is_training:
            self.stopped = (
                f"{self.stopped}: an attempt may take {expected:.0f} s beside its trainings, by "
                "`effort.max_seconds` and, with `quantize=auto`, `quantize.max_seconds`, and "
                f"`search.max_minutes` leaves {max(0.0, self.seconds_left):.0f} s"
            )
        return self.is_training

    def train_rungs(self) -> None:
        """Train those still in the race a little, and drop some, rung after rung."""
        judged = on_validation(self.workspace)
        for epochs in self.plan.epochs(self.epochs):
            racing = [e for e in self.survivors if e.dropped is None]
            if len(racing) < 2 and racing[0].rungs:
                return
            correct: dict[str, NDArray[np.bool_]] = {}
            results: dict[str, tuple[Trained, float]] = {}
            for entry in racing:
                expected = epochs * _seconds_per_epoch(entry) + self._seconds_of_an_attempt(racing)
                if self.seconds_left <= expected:
                    self.stopped = (
                        f"the time was up before all had been trained for {epochs} epochs"
                    )
                    return
                own, slug = self.own[entry.name], self.candidates[entry.name].slug
                result, right = rung_stage(own, judged.changed(own.cfg), slug, epochs)
                self.rungs_done.add((f"rung_{epochs}", slug))
                correct[entry.name] = right
                results[entry.name] = trained(right, epochs), result["seconds"]
            found = self._outlooks(racing, {name: done for name, (done, _) in results.items()})
            blocks = self.workspace.data.validation.blocks
            for entry in racing:
                done, seconds = results[entry.name]
                accuracy = share(correct[entry.name], blocks=blocks, confidence=self.confidence)
                entry.rungs.append(
                    Rung(
                        trained=done,
                        accuracy=accuracy,
                        outlook=found[entry.name],
                        seconds=seconds,
                    )
                )
            scoring = self.workspace.scoring
            lost = beaten(correct, scoring, blocks=blocks, confidence=self.confidence)
            self.beaten |= lost.keys()
            for name, why in dropped(found, lost, self.plan.keep).items():
                self.entry(name).dropped = f"after {epochs} epochs: {why}"
            show_rung(self.workspace, epochs, racing, self.seconds_left)

    def train_in_full(self) -> None:
        """Train in full what promises most; while a verdict misses accuracy, the next."""
        tried: list[str] = []
        while True:
            name = self._next(tried)
            if name is None:
                return
            if len(tried) >= self.plan.max_attempts:
                self.stopped = f"`search.max_attempts` were over before {name}"
                return
            entry = self.entry(name)
            if not self.has_time(f"{name} was trained", self._seconds_of_an_attempt([entry])):
                return
            entry.attempt, verdict = attempt(self.workspace, self.candidates[name])
            entry.dropped = None
            if entry.attempt.verdict == Outcome.PASS or not accuracy_is_missing(verdict["checks"]):
                return
            tried.append(name)

    def _next(self, tried: list[str]) -> str | None:
        """Name what is trained in full next; what a cheaper one beat only where all else is out."""
        by_time = int(self.seconds_left / max(1.0, self._seconds_of_an_attempt(self.survivors)))
        left = max(1, min(self.plan.max_attempts - len(tried), by_time))
        costs = {e.name: e.preflight.cost_ms or e.preflight.size_bytes for e in self.survivors}
        found = self._outlooks(self.survivors, {})
        unbeaten = {name: outlook for name, outlook in found.items() if name not in self.beaten}
        for choice in filter(None, (unbeaten, found)):
            chance = self.plan.min_chance
            if name := next_attempt(choice, costs, tried, min_chance=chance, num_left=left):
                return name
        return None

    def _outlooks(self, entries: list[Entry], latest: dict[str, Trained]) -> dict[str, Outlook]:
        """Predict what those of some that were trained at all would come to, the cheapest first."""
        trainings = {}
        for entry in entries:
            own = [*entry.trainings, *([latest[entry.name]] if entry.name in latest else [])]
            if own and entry.attempt:
                own.append(entry.attempt.on_validation)
            if own:
                trainings[entry.name] = own
        return outlooks(
            trainings,
            self.limits,
            epochs=self.epochs,
            num_test=len(self.workspace.data.test),
            confidence=self.confidence,
        )

    @property
    def confidence(self) -> float:
        """Of every interval."""
        return self.workspace.budget.confidence

    def entry(self, name: str) -> Entry:
        """Find a candidate by name."""
        return next(entry for entry in self.entries if entry.name == name)

    def _seconds_of_an_attempt(self, entries: list[Entry]) -> float:
        """Estimate what the quickest of some takes, with what the attempts so far have taken."""
        done = [e.attempt for e in self.entries if e.attempt]
        return seconds_of_an_attempt(
            self.workspace,
            min(map(_seconds_per_epoch, entries)),
            [self.workspace.run_dir / attempt.run_dir for attempt in done],
        )


def _seconds_per_epoch(entry: Entry) -> float:
    """Take what the last short training took; nothing is known before the first."""
    return entry.rungs[-1].seconds / entry.rungs[-1].trained.epochs if entry.rungs else 0.0
