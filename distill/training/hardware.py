"""What this machine can do for training, and how its memory allocator is best set."""

import ctypes
import os
import sys

import torch

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
    for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD"):
        os.environ.setdefault(f"MALLOC_{name}_", str(1 << 30))  # for processes started from here
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 1 << 30), (_TOP_PAD, 64 << 20))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def has_bfloat16(device: str) -> bool:
    """Tell whether a device (`cpu`, `cuda`) multiplies in bfloat16 faster than in float32."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
