"""The whole circle, as `make loop` goes it: only the labels are given by hand."""

import lifecycle_circle as circle
import pytest
from commands import BRIEF, run_cli

pytestmark = pytest.mark.slow
FEWER = {"NUM_REQUESTS": 1000, "AUDIT_SHARE": 0.15, "NUM_CHOSEN": 150, "PATIENCE": 1}
SOONER = (
    "trainer.max_epochs=20",
    "teacher_training.trainer.max_epochs=10",
    "preflight=false",
    "quantize=none",
)


def run(own, *command, expected=(0,)):
    """Run a verb here, where everything is imported; the service alone is a process of its own."""
    ran = run_cli(*command, cwd=own.work)
    assert ran.code in expected, ran.stderr
    return ran.document


def test_after_the_world_changed_some_labels_bring_the_accuracy_back(tmp_path, monkeypatch):
    # A sixth of the requests, and so a larger share of labels than `make loop` asks for.
    for name, value in FEWER.items():
        monkeypatch.setattr(circle, name, value)
    quiet = (*BRIEF, *circle.QUIET[1:], "budget.peak_rss_bytes=null", *SOONER)
    recipe = [one for one in circle.RECIPE if one not in circle.QUIET]
    monkeypatch.setattr(circle, "QUIET", quiet)
    monkeypatch.setattr(circle, "RECIPE", (*recipe, *quiet))
    monkeypatch.setattr(circle.Circle, "run", run)
    _, found = circle.retrained(tmp_path, seed=0)
    assert found["monitor_asks"] == "retrain", found
    # What people are asked about is drawn by chance: an audit may leave the verdict open.
    assert found["verdict"] in ("pass", "inconclusive"), found
    proven = found["verdict"] == "pass" and found["rollout"] == "decided"
    assert found["is_champion"] == proven, found
    assert found["accuracy_before"] < 0.92 < found["accuracy_after"], found
