"""The processes that run one command together, started by torchrun or SLURM; mostly there is one.

The first of them leads: it holds the run folder, decides what is still to be done and writes. The
others train and label with it, and otherwise wait. Importing this pulls no torch.
"""

import logging
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

from distill.errors import UsageError


class Ranks(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    num_ranks: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0


def launched(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read this process's rank from what torchrun or srun has set."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return Ranks(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
    if "SLURM_STEP_NUM_TASKS" in environment:  # of srun alone; a batch script has SLURM_NTASKS
        return Ranks(int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"]))
    return Ranks()


def check_shared_folder(overrides: list[str]) -> None:
    """Refuse several processes without one run folder: each would name its own by the clock.

    Raises:
        UsageError: there are several, and no `run_dir=` among the overrides.
    """
    num_ranks = launched().num_ranks
    if num_ranks > 1 and not any(override.startswith("run_dir=") for override in overrides):
        raise UsageError(
            f"Expected `run_dir=` for {num_ranks} processes that work together but each would "
            "choose its own. Add `run_dir=<a folder that all of them see>`."
        )


def agree(value: Any) -> Any:
    """Return the leader's value on every rank, once all are here; alone, the value itself."""
    if launched().num_ranks == 1:
        return value
    import torch.distributed

    _meet()
    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


@cache
def _meet() -> None:
    """Connect the processes; Lightning goes on with this connection."""
    import torch.distributed
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    torchrun = TorchElasticEnvironment.detect()
    cluster = TorchElasticEnvironment() if torchrun else SLURMEnvironment()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    os.environ |= {"MASTER_ADDR": cluster.main_address, "MASTER_PORT": str(cluster.main_port)}
    rank, num_ranks = launched()
    # The others wait while the leader measures and exports, however long that takes.
    torch.distributed.init_process_group(
        backend, rank=rank, world_size=num_ranks, timeout=timedelta(days=7)
    )


def log_to_stderr(prefix: str = "") -> None:
    """Show what the leading process says, each message as it is.

    Args:
        prefix: before each, of one among several that speak.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    logger = logging.getLogger("distill")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if launched().leads else logging.ERROR)
