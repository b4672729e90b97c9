"""What a search knows of every candidate, what it cost, and the same as an Optuna study.

Plain values; knows nothing of how they came to be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.budget import Outcome
from distill.deployment.search.outlook import Outlook, Trained
from distill.deployment.search.preflight import Preflight
from distill.files import atomic_path
from distill.statistics.metrics import Estimate

QUALITY = ("accuracy", "drop_", "gain_", "parity_")  # how checks begin that training decides


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One short training of a candidate: whole, by its own schedule."""

    trained: Trained
    accuracy: Estimate
    outlook: Outlook
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One full training of a candidate with its control, and what the verdict says of its files.

    `accuracy` is on the test set, of the file that the verdict chose, or of the student in float32.
    """

    run_dir: str
    verdict: str
    artefact: str | None
    accuracy: Estimate
    on_validation: Trained
    p95_latency_ms: float | None
    seconds: float


@dataclass(kw_only=True)
class Entry:
    """A candidate and its way through the search.

    Attributes:
        name: of the candidate.
        student: its configuration.
        preflight: what its untrained files say.
        rungs: its short trainings.
        dropped: where it left the race and why; None while it is in.
        attempt: its full training; None without.
    """

    name: str
    student: dict[str, Any]
    preflight: Preflight
    rungs: list[Rung] = field(default_factory=list)
    dropped: str | None = None
    attempt: Attempt | None = None

    @property
    def trainings(self) -> list[Trained]:
        """Its short trainings, the shorter first."""
        return [rung.trained for rung in self.rungs]


def compute(entries: Sequence[Entry], *, epochs: int, num_samples: int) -> dict[str, Any]:
    """Add up what was trained, beside training every candidate in full.

    Multiply-accumulates of forward passes: epochs times samples times those of one image. Controls
    count; the teacher, which either way needs once, does not.

    Args:
        entries: all candidates, also those that preflight refused.
        epochs: of a full training.
        num_samples: of the training set.
    """

    def total(pairs: Iterable[tuple[Entry, float]]) -> float:
        return float(sum(n * num_samples * entry.preflight.macs for entry, n in pairs))

    rungs = total((e, sum(rung.trained.epochs for rung in e.rungs)) for e in entries)
    attempts = [e for e in entries if e.attempt]
    students = total((e, epochs) for e in attempts)
    everything = total((e, epochs) for e in entries)
    spent = rungs + 2 * students
    return {
        "rung_macs": rungs,
        "student_macs": students,
        "control_macs": students,
        "spent_macs": spent,
        "all_in_full_macs": everything,
        "share": spent / everything if everything else None,
        "survivors_in_full_macs": total(
            (e, epochs) for e in entries if e.preflight.outcome is not Outcome.FAIL
        ),
        "rung_seconds": sum(rung.seconds for e in entries for rung in e.rungs),
        "attempt_seconds": sum(e.attempt.seconds for e in attempts if e.attempt),
    }


def accuracy_is_missing(checks: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a more accurate student may pass where this one did not.

    It may unless a file is accurate enough and not shown to miss the target's limits: there only
    the measurement is open, and a dearer student would not settle it.

    Args:
        checks: of a verdict that did not pass, as plain values.
    """
    for name in {check["artefact"] for check in checks}:
        own = [check for check in checks if check["artefact"] == name]
        quality = [c for c in own if c["name"].startswith(QUALITY)]
        others = [c for c in own if c not in quality]
        accurate = all(c["outcome"] == Outcome.PASS for c in quality)
        if accurate and all(c["outcome"] != Outcome.FAIL for c in others):
            return False
    return True


def write_study(path: Path, name: str, entries: Sequence[Entry]) -> None:
    """Write the search as an Optuna study in SQLite, whole or not at all, for its dashboard.

    Intermediate values are accuracies on validation by epochs; what preflight refused has none.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    families = optuna.distributions.CategoricalDistribution([entry.name for entry in entries])
    with atomic_path(path) as temporary:
        storage = optuna.storages.RDBStorage(f"sqlite:///{temporary}")
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        for entry in entries:
            values = {r.trained.epochs: r.accuracy.estimate for r in entry.rungs}
            last = list(values.values())[-1:]
            finished = entry.attempt is not None and last
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if finished else TrialState.PRUNED,
                    value=last[0] if last else None,
                    params={"candidate": entry.name},
                    distributions={"candidate": families},
                    intermediate_values=values,
                    user_attrs={
                        "p50_latency_ms": entry.preflight.cost_ms,
                        "size_bytes": entry.preflight.size_bytes,
                        "macs": entry.preflight.macs,
                        "dropped": entry.dropped,
                        "verdict": entry.attempt and entry.attempt.verdict,
                    },
                )
            )
        storage.remove_session()
        storage.engine.dispose()
