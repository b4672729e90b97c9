"""The parts of `search.py`: preflight against trained files, digits with its oracle, CIFAR-10."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import check
from omegaconf import OmegaConf
from scipy.stats import kendalltau

from distill.files import read_json, write_json

SEEDS = range(15, 20)  # 0 to 14 were looked at while defaults, budget and space were chosen
NUM_TRAINED = 8
QUICK = ("trainer.max_epochs=10", "teacher_training.trainer.max_epochs=3", "effort=quick")
Part = tuple[list[dict], list[dict]]


def preflight(work: Path, *, quick: bool) -> Part:
    """Time preflight of the digits' 20 candidates; train 8 of them and measure those files."""
    overrides = ["budget=digits_tight", *(QUICK if quick else ())]
    searched, _ = search(work / "preflight", [*overrides, "search.max_minutes=0.001"])
    candidates = searched["candidates"]
    seconds = read_json(work / "preflight" / "manifests" / "preflight.json")["seconds"]
    spaced = np.linspace(0, len(candidates) - 1, 2 if quick else NUM_TRAINED).round().astype(int)
    rows, files = [], []
    for number in spaced:
        candidate = candidates[number]
        folder = work / "trained" / slug(candidate["name"])
        train(folder, student(candidate) + list(QUICK if quick else ()))
        artefact = "model.onnx" if candidate["preflight"]["precision"] == "float32" else None
        artefact = artefact or f"model.{candidate['preflight']['precision']}.onnx"
        name = work / "trained" / f"{number:02d}.onnx"
        name.unlink(missing_ok=True)
        os.link(folder / "export" / artefact, name)
        files.append(name)
        rows.append({"subject": "preflight", "candidate": candidate["name"], "file": name.name})
    run("benchmark", work / "trained_latency", [f"artefacts=[{','.join(map(str, files))}]"])
    report = read_json(work / "trained_latency" / "benchmark.json")
    trained = {r["artefact"]: r["p50_latency_ms"]["estimate"] for r in report["artefacts"]}
    for row, number in zip(rows, spaced, strict=True):
        row["untrained_p50_ms"] = candidates[number]["preflight"]["cost_ms"]
        row["trained_p50_ms"] = trained[row["file"]]
    tau = kendalltau(*([r[f"{k}_p50_ms"] for r in rows] for k in ("untrained", "trained")))
    checks = [
        check(f"preflight of {len(candidates)} candidates: seconds", seconds, 180, at_most=True),
        check(f"Kendall's tau of {len(rows)} untrained against trained", float(tau.statistic), 0.9),
    ]
    return rows, checks


def digits(work: Path, *, quick: bool) -> Part:
    """Search with every seed, and see by full trainings whether the winner is the cheapest."""
    rows = []
    ends = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        overrides = ["budget=digits_tight", f"seed={seed}", *(QUICK if quick else ())]
        ends[seed] = search(work / f"digits_{seed}", overrides)
    for seed, (found, wall) in ends.items():
        oracle = cheapest_that_holds(work, found, seed, QUICK if quick else ())
        refused = sum(c["preflight"]["outcome"] == "fail" for c in found["candidates"])
        rows.append(
            {
                "subject": "digits",
                "seed": seed,
                "verdict": found["verdict"],
                "winner": found["winner"] and found["winner"]["candidate"],
                "cheapest_that_holds": oracle["cheapest"],
                "seconds": found["seconds"],
                "wall_seconds": wall,
                "refused_by_preflight": refused,
                "num_verdicts": found["num_verdicts"],
                "compute": found["compute"],
                "cheaper_in_full": oracle["verdicts"],
            }
        )
    winners = Counter(row["winner"] for row in rows)
    most = winners.most_common(1)[0]
    share = max(row["compute"]["share"] for row in rows)
    right = sum(row["winner"] == row["cheapest_that_holds"] for row in rows)
    num_refused = rows[0]["refused_by_preflight"]
    num = len(found["candidates"])
    return rows, [
        check("digits: seconds, the slowest", max(r["seconds"] for r in rows), 300, at_most=True),
        check("digits: share of the compute of all in full", share, 1 / 3, at_most=True),
        check(f"digits: seeds that find {most[0]}", most[1], 0.8 * len(rows)),
        check("digits: seeds that find the cheapest that holds", right, 0.8 * len(rows)),
        check("digits: share refused by preflight, at least", num_refused / num, 0.4),
        check("digits: share refused by preflight", num_refused / num, 0.6, at_most=True),
    ]


def cifar(work: Path, root: str, teacher: str | None, overrides: Sequence[str]) -> Part:
    """Search once on CIFAR-10."""
    given = [f"teacher.checkpoint={teacher}"] if teacher else []
    limits = ["budget.size_bytes=300000"]  # in float32 or int8: resnet20 and what is wider is out
    command = ["experiment=cifar10", "space=cifar", f"data.root={root}", *limits, *given]
    found, wall = search(work / "cifar", [*command, *overrides])
    here = {key: value for key, value in found.items() if key not in ("run_dir", "report")}
    row = {"subject": "cifar10", "wall_seconds": wall, "teacher_given": teacher is not None} | here
    return [row], [check("cifar10: seconds", found["seconds"], 3600, at_most=True)]


def cheapest_that_holds(work: Path, found: dict, seed: int, quick: Sequence[str]) -> dict:
    """Train in full whatever is cheaper than a search's winner and was not refused: its oracle.

    A search without rungs: each is a pipeline of its own. Where none of them passes, the winner is
    the cheapest, for it has passed; without a winner, all are trained.

    Returns:
        Its name, and the verdict on each that was trained.
    """
    done = work / f"oracle_{seed}.json"
    if done.is_file():
        return read_json(done)
    winner = found["winner"] and found["winner"]["candidate"]
    cheapest, verdicts = winner, {}
    for candidate in found["candidates"]:
        if candidate["name"] == winner:
            break
        if candidate["preflight"]["outcome"] == "fail":
            continue
        folder = work / f"oracle_{seed}" / slug(candidate["name"])
        settings = ["budget=digits_tight", f"seed={seed}", "preflight=false", *quick]
        labels = work / f"digits_{seed}" / "soft_labels"
        teacher = work / f"digits_{seed}" / "train" / "teacher" / "best.pt"
        settings += [f"soft_labels.path={labels}", f"teacher.checkpoint={teacher}"]
        run("pipeline", folder, [*settings, *student(candidate)])
        verdicts[candidate["name"]] = read_json(folder / "verdict.json")["verdict"]
        if verdicts[candidate["name"]] == "pass":
            cheapest = candidate["name"]
            break
    write_json(done, {"cheapest": cheapest, "verdicts": verdicts})
    return read_json(done)


def search(run_dir: Path, overrides: Sequence[str]) -> tuple[dict, float]:
    """Search, and return what was found and the seconds on the wall; a finished one is kept."""
    record = run_dir / "wall.json"
    start = time.monotonic()
    run("search", run_dir, overrides)
    if not record.is_file():
        write_json(record, {"seconds": time.monotonic() - start})
    return read_json(run_dir / "search.json"), read_json(record)["seconds"]


def train(run_dir: Path, overrides: Sequence[str]) -> None:
    """Run a pipeline without a limit."""
    run("pipeline", run_dir, ["budget=none", *overrides])


def run(verb: str, run_dir: Path, overrides: Sequence[str]) -> None:
    """Run a verb; a verdict that does not pass is no error."""
    command = [sys.executable, "-m", "distill", verb, f"run_dir={run_dir}", *overrides]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 3, 4):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")


def student(candidate: dict) -> list[str]:
    """Write a candidate as overrides of a pipeline."""
    text = OmegaConf.create(candidate["student"])
    values = OmegaConf.to_container(text)
    assert isinstance(values, dict)
    return ["~student.widths"] + [
        f"++student.{key}={value}".replace(" ", "").replace("'", "")
        for key, value in values.items()
    ]


def slug(name: str) -> str:
    """Write a name so that it can be a part of a path."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)
