"""The whole circle, as `make loop` goes it: only the labels are given by hand."""

import lifecycle_circle as circle
import pytest
from conftest import BRIEF

pytestmark = pytest.mark.slow


def test_after_the_world_changed_some_labels_bring_the_accuracy_back(tmp_path, monkeypatch):
    # A quarter of the requests, and so a larger share of labels than `make loop` asks for.
    for name, value in (("NUM_REQUESTS", 1500), ("AUDIT_SHARE", 0.1), ("NUM_CHOSEN", 250)):
        monkeypatch.setattr(circle, name, value)
    monkeypatch.setattr(circle, "QUICK", (*BRIEF, circle.QUICK[1]))
    _, found = circle.retrained(tmp_path, seed=0)
    assert found["monitor_asks"] == "retrain"
    # What people are asked about is drawn by chance: an audit may leave the verdict open.
    assert found["verdict"] in ("pass", "inconclusive")
    proven = found["verdict"] == "pass" and found["rollout"] == "decided"
    assert found["is_champion"] == proven
    assert found["accuracy_before"] < 0.92 < found["accuracy_after"]
