"""What this machine can do for training, and how a process is best set up for it."""

import ctypes
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

# glibc's <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def tune_allocator() -> bool:
    """Let glibc keep freed memory for the next step instead of giving it back to the kernel.

    Every step allocates activations of the same sizes. With the defaults those above 128 kB to
    32 MB come from `mmap` and fault in tens of thousands of fresh pages a step; kept, a step of a
    small network takes a tenth to a third less time. Costs at most the peak memory, held longer.

    Returns:
        Whether it was done: glibc on Linux only.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 1 << 30), (_TOP_PAD, 64 << 20))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


class TunedProcess(Callback):
    """Sets up every process that a trainer runs in, the spawned ones too."""

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Tune the allocator, and stop torch from filling memory that is overwritten anyway.

        `deterministic=true` fills every new tensor, in case something reads it before it is
        written; nothing does here, and a resnet20 step takes 5 % less time without.
        """
        tune_allocator()
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class CompiledStudent(Callback):
    """Compiles a module's student in every process that a trainer runs in.

    In place: neither the names of its weights nor what is kept of it change.
    """

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Have it compiled at its first batch."""
        cast(nn.Module, pl_module.student).compile()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice to itself where it does not apply to batches made from memory."""
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # they would only copy what is there
            "Checkpoint directory .* exists and is not empty",
            "The number of training batches",
            "Experiment logs directory",
            ".*LeafSpec.*",  # Lightning against torch 2.14
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


@contextmanager
def interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Pass Ctrl-C on: Lightning catches it, saves nothing, and leaves the program without a word.

    Raises:
        KeyboardInterrupt: the trainer was interrupted.
    """
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt


def has_bfloat16(device: str) -> bool:
    """Tell whether a device (`cpu`, `cuda`) multiplies in bfloat16 faster than in float32."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()


def fastest_precision(accelerator: str) -> str:
    """Name Lightning's precision that trains fastest: bfloat16 autocast, or plain float32.

    Args:
        accelerator: Lightning's name, `cpu`, `gpu`, `cuda` or `auto`.
    """
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    return "bf16-mixed" if has_bfloat16("cuda" if on_gpu else "cpu") else "32-true"
