"""Sets up user-mode emulation in a cache folder: QEMU, and a Python for the emulated CPU.

A program is translated instruction by instruction for the CPU that QEMU is told to be; one that
this CPU lacks is an illegal instruction, as on the device. Nothing is fetched unless asked. Knows
no models.
"""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distill.deployment.targets import apt
from distill.errors import UserError
from distill.files import cache_folder, whole_folder

# QEMU 7.2 and older die in onnxruntime's CPU detection: they show it this machine's /proc/cpuinfo.
SUITE = "trixie"  # QEMU 10.0, Python 3.13
DEBIAN_PYTHON = "3.13"
KIND = "emulator"  # of the cache
_DEBIAN_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """A Python on an emulated CPU.

    Attributes:
        command: up to and including the interpreter and its options.
        environment: variables it needs besides `PYTHONPATH`.
        python_version: such as 3.13.
        qemu: version of the package it came from.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    python_version: str
    qemu: str


def set_up(
    architecture: str,
    cpu: str,
    *,
    download: bool,
    progress: Callable[[str], None] = lambda said: None,
) -> Emulator:
    """Find an emulator in the cache, or set it up there.

    An x86-64 CPU runs this machine's own Python, an ARM one a Python of Debian's.

    Args:
        architecture: `aarch64` or `x86_64`.
        cpu: as QEMU names it, such as cortex-a72.
        download: whether what is missing may be fetched.
        progress: told in words what is being done.

    Raises:
        UserError: this machine cannot emulate, or something is missing and cannot be had.
    """
    found = (platform.system(), platform.machine())
    if found != ("Linux", "x86_64"):
        raise UserError(
            f"Expected Linux on x86-64 to emulate {cpu} but this is {' on '.join(found)}. "
            "Measure on the device instead, over ssh."
        )
    if architecture not in _DEBIAN_NAMES:
        raise UserError(
            f"Expected `architecture` to be {' or '.join(_DEBIAN_NAMES)} but got {architecture!r}."
        )
    parts: dict[str, Callable[[Path, Path], None]] = {f"qemu-{SUITE}": _fetch_qemu}
    if architecture == "aarch64":
        parts[f"python-{SUITE}-aarch64"] = _fetch_python
    cache = cache_folder(KIND)
    folders = [cache / name for name in parts]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing and not download:
        raise UserError(
            f"Expected an emulator for {cpu} in {cache} but "
            f"{' and '.join(folder.name for folder in missing)} is not there, and nothing is "
            "fetched unless asked. Set `target.download=true`, or "
            "`emulator.<name>.download=true`, to fetch it from this machine's Debian mirror: up to "
            "110 MB, without root."
        )
    for folder, (name, fetch) in zip(folders, parts.items(), strict=True):
        if not folder.is_dir():
            progress(f"fetching {name} from the Debian mirror")
            with whole_folder(folder) as new:
                if new is not None:
                    fetch(new, new.with_name(f"{new.name}-apt"))
    return _emulator(architecture, cpu, *folders)


def _fetch_qemu(folder: Path, work: Path) -> None:
    work.mkdir(mode=0o700)  # apt's settings may hold a proxy's password
    packages = apt.fetch_packages(["qemu-user"], architecture="amd64", suite=SUITE, work=work)
    (package,) = (path for path in packages if path.name.startswith("qemu-user_"))
    apt.unpack_files(package, [f"usr/bin/qemu-{name}" for name in _DEBIAN_NAMES], folder)
    (folder / "packages.txt").write_text(f"{package.name}\n")


def _fetch_python(folder: Path, work: Path) -> None:
    work.mkdir(mode=0o700)
    names = [f"python{DEBIAN_PYTHON}-minimal", f"libpython{DEBIAN_PYTHON}-stdlib", "libstdc++6"]
    packages = apt.fetch_packages(names, architecture="arm64", suite=SUITE, work=work)
    apt.unpack(packages, folder)
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to("usr/lib")  # where programs look for their loader
    (folder / "packages.txt").write_text("".join(f"{path.name}\n" for path in packages))


def _emulator(architecture: str, cpu: str, qemu: Path, root: Path | None = None) -> Emulator:
    run = (str(qemu / f"qemu-{architecture}"), "-cpu", cpu)
    version = (qemu / "packages.txt").read_text().split("_")[1].replace("%3a", ":")
    if root is None:
        # -S: nothing but what PYTHONPATH names; an environment's own packages stay out.
        python = str(Path(sys.executable).resolve())
        return Emulator(
            command=(*run, python, "-S", "-s", "-B"),
            environment={},
            python_version=f"{sys.version_info[0]}.{sys.version_info[1]}",
            qemu=version,
        )
    python = str(root / "usr" / "bin" / f"python{DEBIAN_PYTHON}")
    return Emulator(
        command=(*run, "-L", str(root), python, "-s", "-B"),
        environment={"PYTHONHOME": str(root / "usr")},
        python_version=DEBIAN_PYTHON,
        qemu=version,
    )
