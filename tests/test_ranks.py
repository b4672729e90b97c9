"""Claims about several processes that run one command together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_cli

from distill.errors import UsageError
from distill.files import read_json
from distill.verbs import ranks
from distill.verbs.ranks import Ranks, launched


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Ranks(0, 1)),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4"}, Ranks(3, 4)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, Ranks(0, 1)),  # set by something else
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "8"}, Ranks(2, 8)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Ranks(0, 1)),  # a batch script, no srun
    ],
)
def test_the_rank_is_what_torchrun_or_srun_says(environment, expected):
    assert launched(environment) == expected


def test_processes_that_would_each_choose_a_run_folder_are_refused(monkeypatch):
    monkeypatch.setattr(ranks, "launched", lambda: Ranks(1, 2))
    with pytest.raises(UsageError, match="`run_dir=` for 2 processes"):
        ranks.check_shared_folder(["seed=1"])
    ranks.check_shared_folder(["run_dir=x"])


COMMON = (
    "train",
    "student",
    "trainer.max_epochs=3",
    "teacher_training.trainer.max_epochs=2",
    "soft_labels.num_views=1",  # one block: less than there are processes
    "soft_labels.precision=float32",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `one`, what a process alone has trained."""
    folder = tmp_path_factory.mktemp("ranks")
    alone = run_cli(*COMMON, "run_dir=one", cwd=folder)
    assert alone.code == 0, alone.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("starts", ["the trainer", "torchrun"])
def test_two_processes_share_batches_and_labels_and_learn_as_one_does(starts, folder):
    launcher, more = [sys.executable], []
    if starts == "torchrun":
        torchrun = str(Path(sys.executable).with_name("torchrun"))
        launcher = [torchrun, "--standalone", "--nproc-per-node=2"]
        more = ["trainer.strategy=ddp"]
    run_dir = folder / starts.replace(" ", "_")
    done = subprocess.run(
        [
            *launcher, "-m", "distill", *COMMON, "trainer=ddp", *more,
            "teacher.checkpoint=one/train/teacher/best.pt", f"run_dir={run_dir.name}",
        ],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        # Another number of threads adds up in another order.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == read_json(run_dir / "train.json")  # one speaks for all
    for path in (folder / "one/soft_labels").glob("*.npy"):
        assert path.read_bytes() == (run_dir / "soft_labels" / path.name).read_bytes()
    rates, losses = zip(
        *(
            [
                [epoch[name] for epoch in read_json(own / "train/student/history.json")]
                for name in ("learning_rate", "train/loss")
            ]
            for own in (folder / "one", run_dir)
        ),
        strict=True,
    )
    assert rates[0] == pytest.approx(rates[1])
    # The same batches: only batch norm, which sees half of each, tells the two apart.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.05)
    assert losses[1] == pytest.approx(losses[0], rel=0.35)
