"""Claims about preflight: what an untrained file says, and who is refused for it."""

import numpy as np
import pytest
from commands import SHORT

from distill.budget import Budget, LatencyBudget, Outcome
from distill.deployment.measurement import PROCESS
from distill.deployment.search.preflight import has_limits, judge, too_much
from distill.files import read_json

MS = 1_000_000


def measured(**candidates):
    """Figures of candidates, each precision to (median latency in ms, bytes)."""
    rows, found, samples = [], {}, {PROCESS: np.repeat([0, 1, 2], 20)}
    for name, precisions in candidates.items():
        found[name] = {"files": {p: f"{name}.{p}" for p in precisions}, "macs": 1}
        for precision, (latency, size) in precisions.items():
            file = f"{name}.{precision}"
            figure = {"estimate": latency, "interval": [latency, latency]}
            rows.append(
                {
                    "artefact": file,
                    "size_bytes": size,
                    "p50_latency_ms": figure,
                    "p95_latency_ms": figure,
                    "samples_per_second": None,
                    "cold_start_ms": None,
                    "peak_rss_bytes": None,
                    "golden": None,
                }
            )
            samples[file] = np.full((60, 10), int(latency * MS))
    conditions = {"first_decision_after": 3, "elapsed_s": 1.0, "utilisation": {}}
    report = {"target": "t", "artefacts": rows, "problems": [], "conditions": conditions}
    return report | {"candidates": found}, samples


BUDGET = Budget(latency=LatencyBudget(p95_ms=5.0), size_bytes=1000)


def test_a_candidate_is_refused_only_if_each_of_its_files_misses_a_limit():
    found = judge(
        BUDGET,
        *measured(
            fits={"float32": (2.0, 500), "int8": (1.0, 200)},
            int8_alone={"float32": (3.0, 4000), "int8": (4.0, 900)},
            neither={"float32": (4.0, 4000), "int8": (20.0, 900)},
        ),
    )
    outcomes = {p.candidate: p.outcome for p in found}
    assert outcomes == {"fits": "pass", "int8_alone": "pass", "neither": "fail"}


def test_candidates_are_ordered_by_the_median_of_the_cheapest_file_that_may_hold():
    found = judge(
        BUDGET,
        *measured(
            slow={"float32": (3.0, 500)},
            quick_but_large={"float32": (0.5, 4000), "int8": (4.0, 900)},
            quick={"float32": (2.0, 500), "int8": (1.0, 200)},
        ),
    )
    assert [(p.candidate, p.precision, p.cost_ms) for p in found] == [
        ("quick", "int8", 1.0),
        ("slow", "float32", 3.0),
        ("quick_but_large", "int8", 4.0),
    ]


def test_what_is_missed_is_told_of_the_nearest_file_and_by_how_much():
    (found,) = judge(BUDGET, *measured(a={"float32": (1.0, 4000), "int8": (1.0, 1500)}))
    assert found.misses == "size 1.5 kB, limit 1 kB (1.5 times it)"
    assert found.precision == "int8"


def test_a_disturbed_machine_refuses_nobody_for_latency():
    report, samples = measured(a={"float32": (50.0, 500)})
    assert judge(BUDGET, report, samples)[0].outcome is Outcome.FAIL
    disturbed = report | {"problems": ["other programs"]}
    assert judge(BUDGET, disturbed, samples)[0].outcome is Outcome.INCONCLUSIVE


def test_a_target_without_latencies_orders_by_size():
    report, _ = measured(a={"float32": (1.0, 900)}, b={"float32": (2.0, 500)})
    for row in report["artefacts"]:
        row["p50_latency_ms"] = row["p95_latency_ms"] = None
    found = judge(BUDGET, report, {})
    assert [(p.candidate, p.outcome) for p in found] == [
        ("b", Outcome.INCONCLUSIVE),
        ("a", Outcome.INCONCLUSIVE),
    ]


def test_one_start_over_a_limit_is_worth_more_of_them():
    row = {"artefact": "a", "cold_start_ms": {"estimate": 300.0}, "peak_rss_bytes": None}
    over = Budget(latency=LatencyBudget(cold_start_ms=200))
    assert too_much([row], over) == ["a"]
    assert too_much([row], Budget(latency=LatencyBudget(cold_start_ms=400))) == []
    assert too_much([row], Budget()) == []


def test_a_budget_of_accuracies_alone_needs_no_preflight():
    assert not has_limits(Budget())
    assert has_limits(BUDGET)
    assert has_limits(Budget(peak_rss_bytes=1))


@pytest.mark.slow
def test_a_pipeline_whose_student_is_too_large_trains_nothing_and_says_what_to_do(cli, tmp_path):
    ran = cli("pipeline", "run_dir=run", "budget.size_bytes=5000")
    assert ran.code == 3
    assert ran.document == read_json(tmp_path / "run/verdict.json")
    assert ran.document["verdict"] == "fail"
    assert "limit 5 kB" in ran.document["why"]
    assert "`preflight=false`" in ran.stderr
    failed = {c["name"] for c in ran.document["checks"] if c["outcome"] == "fail"}
    assert failed == {"size_bytes"}
    assert not (tmp_path / "run/train").exists()
    report = (tmp_path / "run/report.html").read_text().replace("_", " ")
    assert "size bytes" in report
    assert "Nothing was trained" in report
    again = cli("pipeline", "run_dir=run", "budget.size_bytes=6000")
    assert again.code == 3
    assert "preflight: unchanged, not run again" in again.stderr  # judged anew, not measured anew


@pytest.mark.slow
def test_a_table_of_fewer_categories_is_another_file_and_is_measured_anew(cli, tmp_path, rng):
    towns, labels = rng.integers(0, 300, 900), rng.integers(0, 2, 900)
    rows = [f"town {town},{label}" for town, label in zip(towns, labels, strict=True)]
    (tmp_path / "towns.csv").write_text("\n".join(["town,label", *rows]))
    given = ("experiment=table_ensemble", "data=table", "data.path=towns.csv", "data.label=label")
    sizes = []
    for num_categories in (1000, 5):
        most = f"data.max_categories={num_categories}"
        ran = cli("pipeline", *given, most, "budget.size_bytes=1", "run_dir=run", *SHORT)
        assert ran.code == 3, ran.stderr
        rows = read_json(tmp_path / "run/preflight.json")["artefacts"]
        sizes.append(next(r["size_bytes"] for r in rows if r["artefact"] == "student.onnx"))
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.slow
def test_an_untrained_file_is_as_large_as_the_trained_one(finished):
    run_dir, _ = finished
    before = {
        r["artefact"]: r["size_bytes"] for r in read_json(run_dir / "preflight.json")["artefacts"]
    }
    after = read_json(run_dir / "export.json")["size_bytes"]
    assert before["student.onnx"] == pytest.approx(after["model.onnx"], abs=64)
    assert before["student.int8.onnx"] == pytest.approx(after["model.int8.onnx"], abs=64)
