"""Claims about several processes that run one command together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_cli

from distill.errors import UsageError
from distill.files import read_json
from distill.verbs.run import ranks
from distill.verbs.run.ranks import Ranks, launched


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


@pytest.mark.slow
def test_torchrun_trains_and_labels_with_one_store_and_one_result(tmp_path):
    common = (
        "train",
        "trainer.max_epochs=3",
        "teacher_training.trainer.max_epochs=2",
        "soft_labels.num_views=1",  # one block: less than there are processes
        "soft_labels.precision=float32",
    )
    alone = run_cli(*common, "run_dir=one", cwd=tmp_path)
    assert alone.code == 0, alone.stderr
    together = [
        "teacher.checkpoint=one/train/teacher/best.pt",
        "trainer=ddp",
        "trainer.strategy=ddp",
        "run_dir=two",
    ]
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    command = [torchrun, "--standalone", "--nproc-per-node=2", "-m", "distill", *common, *together]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("over_seeds") == 1  # the leader speaks for all
    assert json.loads(done.stdout.splitlines()[-1]) == read_json(tmp_path / "two/train.json")
    for path in (tmp_path / "one/soft_labels").glob("*.npy"):
        assert path.read_bytes() == (tmp_path / "two/soft_labels" / path.name).read_bytes()
    rates, losses = zip(
        *(
            [
                [epoch[name] for epoch in read_json(tmp_path / f"{run}/train/student/history.json")]
                for name in ("learning_rate", "train/loss")
            ]
            for run in ("one", "two")
        ),
        strict=True,
    )
    assert rates[0] == pytest.approx(rates[1])
    # The same batches: only batch norm, which sees half of each, tells the two apart.
    assert losses[1] == pytest.approx(losses[0], rel=0.25)
