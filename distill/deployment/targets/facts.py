"""What a device says of itself before anything is copied there, and whether that will do."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from distill.deployment.wheels import ARCHITECTURES, own_packages, site_packages
from distill.errors import UserError

MIN_PYTHON = (3, 9)
MIN_NUMPY, MIN_ONNXRUNTIME = (1, 21), (1, 18)  # of ONNX 1.16: opset 20 in files of IR 10


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """The answer of `device.probe`.

    Attributes:
        system: Linux, or another.
        architecture: as its kernel calls it, which says nothing of its programs.
        pointer_bits: of its Python.
        implementation: CPython, or another.
        python: version.
        libc: name and version.
        cpus: that a process may use.
        packages: versions of numpy and onnxruntime, None where they cannot be imported together.
        openvino: its version, None where it cannot be imported.
        temporary: folder for temporary files, with the room on its disk.
        cache: folder that we keep things in, with the room on its disk.
        sites: what is in it.
    """

    system: str
    architecture: str
    pointer_bits: int
    implementation: str
    python: tuple[int, ...]
    libc: str
    cpus: int
    packages: tuple[str, ...] | None
    openvino: str | None
    temporary: str
    temporary_free_bytes: int
    cache: str
    cache_free_bytes: int
    sites: tuple[str, ...]

    def check(self, host: str, num_threads: int) -> None:
        """Refuse a device that cannot run a bundle.

        Raises:
            UserError: says what it lacks.
        """
        for problem in (
            self._wrong_python(host),
            self._wrong_processor(host),
            self._wrong_system(host),
        ):
            if problem:
                raise UserError(problem)
        if self.cpus < num_threads:
            raise UserError(
                f"Expected {num_threads} CPUs on {host} but a process may use {self.cpus} there. "
                "Lower `target.num_threads`."
            )

    def check_runtime(self, host: str, runtime: str) -> None:
        """Refuse a device that lacks a runtime which is not brought along.

        Raises:
            UserError: says what to install.
        """
        if runtime == "openvino" and self.openvino is None:
            raise UserError(
                f"Expected OpenVINO on {host} for `runtime=openvino` but its Python cannot import "
                "it: only numpy and onnxruntime are brought along. Install it there (`pip install "
                "openvino`), or choose `runtime=onnxruntime`."
            )

    def check_room(self, host: str, run_bytes: int, site_bytes: int) -> None:
        """Refuse a device whose disks have no room for the run and for numpy and onnxruntime.

        Raises:
            UserError: says where how much is missing.
        """
        needs = (
            (self.temporary, self.temporary_free_bytes, run_bytes),
            (self.cache, self.cache_free_bytes, run_bytes + site_bytes if site_bytes else 0),
        )
        for folder, free, needed in needs:
            if free < needed:
                raise UserError(
                    f"Expected {needed / 1e6:.0f} MB of room in {folder} on {host} but only "
                    f"{free / 1e6:.0f} MB are free. Make room there."
                )

    def site(self, *, wheels: Path | None, download: bool) -> Path | None:
        """Find numpy and onnxruntime for the device; None where it has its own.

        Raises:
            UserError: there are none for it here.
        """
        if self.has_packages:
            return None
        here = (platform.machine(), sys.version_info[:2])
        if here == (self.architecture, self.python[:2]) and own_libc() <= self.glibc:
            return own_packages()
        return site_packages(
            self.architecture,
            "{}.{}".format(*self.python[:2]),
            wheels=wheels,
            download=download,
            libc=self.glibc,
        )

    @property
    def has_packages(self) -> bool:
        """Whether the device's own numpy and onnxruntime will do."""
        if self.packages is None:
            return False
        numpy, onnxruntime = map(_version, self.packages)
        return numpy >= MIN_NUMPY and onnxruntime >= MIN_ONNXRUNTIME

    @property
    def glibc(self) -> tuple[int, int]:
        """Version of its glibc."""
        return _glibc(self.libc)

    def _wrong_python(self, host: str) -> str | None:
        if self.python >= MIN_PYTHON and self.implementation == "CPython":
            return None
        return (
            f"Expected CPython 3.9 or newer on {host} but found {self.implementation} "
            f"{'.'.join(map(str, self.python))}. Install a newer one and give its path as "
            "`target.python`."
        )

    def _wrong_processor(self, host: str) -> str | None:
        arm = self.architecture.startswith(("arm", "aarch64"))
        if arm and (self.pointer_bits == 32 or self.architecture not in ("aarch64", "arm64")):
            kernel = " under a 64-bit kernel" if self.architecture == "aarch64" else ""
            return (
                f"Expected a 64-bit system on {host} but found 32-bit ARM programs{kernel}: there "
                "are no wheels of onnxruntime, nor of numpy, for 32-bit ARM. Install a 64-bit "
                "system (Raspberry Pi OS 64-bit runs on a Pi 3, 4 and 5)."
            )
        if self.architecture not in ARCHITECTURES or self.pointer_bits != 64:
            return (
                f"Expected a 64-bit Python on {' or '.join(ARCHITECTURES)} on {host} but found "
                f"{self.pointer_bits}-bit {self.architecture}: there are no wheels of onnxruntime "
                "for it. Choose another device."
            )
        return None

    def _wrong_system(self, host: str) -> str | None:
        if self.system != "Linux":
            return f"Expected Linux on {host} but found {self.system}. Choose another device."
        if not self.libc.startswith("glibc "):
            return (
                f"Expected a system with glibc on {host} but its C library is {self.libc} (musl, "
                "as in Alpine, or bionic): wheels of onnxruntime need glibc. Use Debian, Ubuntu "
                "or Raspberry Pi OS there."
            )
        return None


def own_libc() -> tuple[int, int]:
    """Version of this machine's glibc; one that no device reaches where it has another libc."""
    try:
        return _glibc(os.confstr("CS_GNU_LIBC_VERSION") or "")
    except ValueError:
        return (99, 0)


def _glibc(name: str) -> tuple[int, int]:
    numbers = _version(name.removeprefix("glibc "))
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (99, 0)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
