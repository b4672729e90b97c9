"""Says in one JSON line whether a machine can run a bundle: `python3 - < probe.py`.

Standard library alone, and in a syntax that even Python 2 reads, so that an old one can say so.
"""

import json
import os
import platform
import struct
import subprocess
import sys
import tempfile

PACKAGES = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime
print(numpy.__version__, onnxruntime.__version__)
"""
OPENVINO = """
import sys
sys.modules["openvino_telemetry"] = None  # its import reports its use to the internet
import openvino
print(openvino.__version__.split("-")[0])
"""


def main():
    """Print the facts."""
    cache = os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"),
        "distill",
    )
    temporary = tempfile.gettempdir()
    facts = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "pointer_bits": 8 * struct.calcsize("P"),
        "implementation": platform.python_implementation(),
        "python": list(sys.version_info[:3]),
        "libc": libc(),
        "cpus": len(getattr(os, "sched_getaffinity", lambda _: ())(0)),
        "packages": imported(PACKAGES, 2),
        "openvino": (imported(OPENVINO, 1) or [None])[0],
        "temporary": temporary,
        "temporary_free_bytes": free_bytes(temporary),
        "cache": cache,
        "cache_free_bytes": free_bytes(cache),
        "sites": sorted(os.listdir(cache)) if os.path.isdir(cache) else [],
    }
    print(json.dumps({"probe": facts}))


def libc():
    """Name the C library, such as "glibc 2.36"; other ones do not know the question."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "another than glibc"
    except (ValueError, OSError):
        return "another than glibc"


def imported(program, count):
    """Import packages in a process that may die of it; return their versions, or None."""
    process = subprocess.Popen(
        [sys.executable, "-s", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    out = process.communicate()[0]
    versions = out.split()
    return versions if process.returncode == 0 and len(versions) == count else None


def free_bytes(path):
    """Tell the room on the disk that a folder is on, or will be."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


if __name__ == "__main__":
    main()
