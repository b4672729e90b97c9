"""What the console says of a check is what the report's table says."""

import io

from rich.console import Console

from distill.verbs.run.summary import show_checks


def test_a_check_that_does_not_pass_is_told_in_its_unit():
    check = {"artefact": "model.onnx", "outcome": "fail", "note": None}
    checks = [
        check | {"name": "size_bytes", "measured": 3_210_000, "limit": 2_000_000},
        check | {"name": "drop_vs_teacher", "measured": 0.0512, "limit": 0.03},
        check | {"name": "peak_rss_bytes", "measured": None, "limit": 200_000_000},
        check | {"name": "p95_latency_ms", "measured": 6.25, "limit": 5.0, "outcome": "pass"},
    ]
    told = io.StringIO()
    show_checks(Console(file=told, width=200), checks)
    assert told.getvalue().splitlines() == [
        "fail model.onnx size_bytes: 3.21 MB, limit 2 MB",
        "fail model.onnx drop_vs_teacher: 5.12 %, limit 3.00 %",
        "fail model.onnx peak_rss_bytes: unknown, limit 200 MB",
    ]
