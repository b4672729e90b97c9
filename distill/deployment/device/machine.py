"""What machine this is, and what disturbed it while it was measured. Reads /proc and /sys alone."""

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import onnxruntime

# What tells x86 processors apart, in /proc/cpuinfo: some differ in the stepping alone.
NUMBERS = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def describe() -> Dict[str, Any]:
    """Describe this machine as far as it tells: processor, memory, governor, versions."""
    return {
        "system": "%s %s" % (platform.system(), platform.release()),
        "architecture": platform.machine(),
        "processor": processor(),
        "model": _text("/proc/device-tree/model"),
        "cpus": sorted(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_quota": _text("/sys/fs/cgroup/cpu.max"),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def counters() -> Dict[str, Optional[float]]:
    """Read what grows while a machine is disturbed; None where it does not say.

    Returns:
        `busy_s` and `steal_s`: time that the CPUs which this process may use worked for anybody,
        and that the hypervisor gave to others; `throttled`: periods in which a container's CPU
        quota was used up; `load`: mean number of runnable processes over a minute; `celsius`: the
        hottest zone; `throttle_flags`: a Raspberry Pi's own, bits 0 to 3 now, 16 to 19 since boot.
    """
    busy, steal = _cpu_seconds()
    flags = _text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    return {
        "busy_s": busy,
        "steal_s": steal,
        "throttled": _throttled(),
        "load": os.getloadavg()[0],
        "celsius": _celsius(),
        "throttle_flags": float(int(flags, 16)) if flags else None,
    }


def pin(num_threads: int) -> List[int]:
    """Keep this process on as many CPUs as it has threads, the last ones it may use."""
    cpus = sorted(os.sched_getaffinity(0))[-num_threads:]
    os.sched_setaffinity(0, cpus)
    return cpus


def peak_rss_bytes() -> int:
    """Most memory this program has held; getrusage would count its parent before exec as well."""
    for line in (_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def processor() -> Optional[str]:
    """Name the processor; with its numbers, since hypervisors call several by one name."""
    facts: Dict[str, str] = {}
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    if "model name" in facts:
        numbers = ["%s %s" % (own, facts[key]) for own, key in NUMBERS.items() if key in facts]
        return facts["model name"] + (" (%s)" % ", ".join(numbers) if numbers else "")
    if "CPU part" in facts:
        return "implementer %s, part %s" % (facts.get("CPU implementer"), facts["CPU part"])
    return platform.processor() or None


def _cpu_seconds() -> Tuple[Optional[float], Optional[float]]:
    """Sum what the CPUs of this process did (all but idle and waiting), and what was stolen."""
    busy = steal = 0
    own = {"cpu%d" % cpu for cpu in os.sched_getaffinity(0)}
    for line in (_text("/proc/stat") or "").splitlines():
        name, *fields = line.split()
        if name in own and len(fields) > 7:
            user, nice, system, _, _, irq, softirq, stolen = map(int, fields[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
    ticks = os.sysconf("SC_CLK_TCK")
    return (busy / ticks, steal / ticks) if busy else (None, None)


def _throttled() -> Optional[float]:
    for line in (_text("/sys/fs/cgroup/cpu.stat") or "").splitlines():
        if line.startswith("nr_throttled"):
            return float(line.split()[1])
    return None


def _celsius() -> Optional[float]:
    zones = [_text(str(path)) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(zone) / 1000 for zone in zones if zone and zone.lstrip("-").isdigit()]
    return max(degrees) if degrees else None


def _text(path: str) -> Optional[str]:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None
