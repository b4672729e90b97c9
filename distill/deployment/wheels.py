"""numpy and onnxruntime for a machine that lacks them: a folder to put on its PYTHONPATH.

Unpacked from wheels or copied from this environment, and kept in a cache under what they hold.
Fetches nothing unless asked; where from is pip's own setting. Knows nothing of how the folder
gets to the machine.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from distill.errors import UserError
from distill.files import cache_folder, sha256, whole_folder
from distill.redaction import without_passwords

ARCHITECTURES = ("aarch64", "x86_64")
PACKAGES = ("numpy", "onnxruntime")  # onnxruntime's further dependencies are not its inference's
LIBC = (2, 28)

_FILE_NAME = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<tags>[^-]+-[^-]+-[^-]+)\.whl"
)
_LINK = 0o120000


class Wheel(NamedTuple):
    """A wheel's file name, taken apart (PEP 427)."""

    path: Path
    name: str
    version: tuple[int, ...]
    tags: list[tuple[str, str, str]]


def site_packages(
    architecture: str,
    python_version: str,
    *,
    wheels: Path | None,
    download: bool,
    libc: tuple[int, int] = LIBC,
) -> Path:
    """Unpack numpy and onnxruntime for another machine; the same wheels are unpacked once.

    Args:
        architecture: as its `uname -m` says.
        python_version: such as "3.11".
        wheels: a folder that holds the wheels; None looks among those fetched earlier.
        download: whether pip may fetch what is missing; asked for a folder of wheels, it is not.
        libc: the version of its glibc.

    Returns:
        A folder in the cache; not to be changed.

    Raises:
        UserError: another architecture, no wheels that fit, or broken ones.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"Expected the architecture {' or '.join(ARCHITECTURES)} but got {architecture!r}: "
            "there are no wheels of onnxruntime for others. Choose one of these."
        )
    if not re.fullmatch(r"3\.\d{1,2}", python_version):
        raise UserError(
            f"Expected a Python version such as 3.11 but got {python_version!r}. Give the first "
            "two numbers of what `python3 --version` says there."
        )
    found = _fitting(
        wheels or _fetched(architecture, python_version), architecture, python_version, libc
    )
    missing = [name for name in PACKAGES if name not in found]
    if missing and wheels is None and download:
        _download(missing, architecture, python_version, libc)
        folder = _fetched(architecture, python_version)
        found = _fitting(folder, architecture, python_version, libc)
        missing = [name for name in PACKAGES if name not in found]
    if missing:
        machine = f"Python {python_version} on {architecture} with glibc {libc[0]}.{libc[1]}"
        raise UserError(_lacking(f"{' and '.join(missing)} for {machine}", wheels))
    return unpack([found[name].path for name in PACKAGES])


def own_packages() -> Path:
    """Copy this environment's numpy and onnxruntime, for machines that are like this one.

    Raises:
        UserError: they are not installed as packages with a record of their files.
    """
    files: dict[str, Path] = {}
    digest = hashlib.sha256()
    for name in PACKAGES:
        try:
            package = distribution(name)
        except PackageNotFoundError:
            package = None
        record = package.read_text("RECORD") if package else None
        if package is None or not record:
            raise UserError(
                f"Expected an installed package {name} with a RECORD of its files but found none. "
                "Give a folder of wheels instead: `wheels=<folder>`."
            )
        digest.update(record.encode())
        for path in package.files or ():
            inside = ".." not in path.parts and "__pycache__" not in path.parts
            if inside and path.suffix != ".pyc":
                files[str(path)] = Path(str(package.locate_file(path)))

    def fill(folder: Path) -> None:
        for name, source in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)

    return _kept(digest.hexdigest(), fill)


def unpack(wheels: Sequence[Path]) -> Path:
    """Unpack wheels side by side into a cached folder, whole or not at all.

    Raises:
        UserError: one is broken, or would write outside of its folder.
    """

    def fill(folder: Path) -> None:
        for wheel in wheels:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    _extract(archive, folder)
            except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
                raise UserError(
                    f"Expected a whole wheel in {wheel} but found {error}. Delete it and fetch it "
                    "again."
                ) from error

    digest = hashlib.sha256("".join(map(sha256, wheels)).encode()).hexdigest()
    return _kept(digest, fill)


def _extract(archive: zipfile.ZipFile, folder: Path) -> None:
    for entry in archive.infolist():
        if entry.filename.endswith("/"):
            continue
        path = PurePosixPath(entry.filename)
        kind = (entry.external_attr >> 16) & 0o170000
        inside = (
            bool(path.parts)
            and not path.is_absolute()
            and ".." not in path.parts
            and "\\" not in entry.filename
        )
        if not inside or kind == _LINK:
            raise UserError(
                f"Expected files below the wheel's own folder in {archive.filename} but found "
                f"{entry.filename!r}. Do not use this file; fetch the wheel again."
            )
        if path.parts[0].endswith(".data"):  # installers spread these over other folders
            if len(path.parts) < 3 or path.parts[1] not in ("purelib", "platlib"):
                continue
            path = PurePosixPath(*path.parts[2:])
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def _kept(digest: str, fill: Callable[[Path], None]) -> Path:
    """Fill a folder of the cache, once."""
    target = cache_folder("site") / digest[:32]
    if not target.is_dir():
        with whole_folder(target) as new:
            if new is not None:
                fill(new)
    return target


def _fitting(
    folder: Path, architecture: str, python_version: str, libc: tuple[int, int]
) -> dict[str, Wheel]:
    """Choose the newest wheel of each package that the machine can load."""
    chosen: dict[str, Wheel] = {}
    for path in sorted(folder.glob("*.whl")):
        wheel = _parsed(path)
        if wheel is None or wheel.name not in PACKAGES:
            continue
        fits = any(_fits(tag, architecture, python_version, libc) for tag in wheel.tags)
        if fits and (wheel.name not in chosen or wheel.version > chosen[wheel.name].version):
            chosen[wheel.name] = wheel
    return chosen


def _parsed(path: Path) -> Wheel | None:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        return None
    pythons, abis, platforms = (part.split(".") for part in match["tags"].split("-"))
    tags = [(p, a, m) for p in pythons for a in abis for m in platforms]
    version = tuple(int(number) for number in re.findall(r"\d+", match["version"]))
    return Wheel(path, match["name"].lower().replace("_", "-"), version, tags)


def _fits(
    tag: tuple[str, str, str], architecture: str, python_version: str, libc: tuple[int, int]
) -> bool:
    python, abi, machine = tag
    minor = int(python_version.split(".")[1])
    own = f"cp3{minor}"
    stable = abi == "abi3" and re.fullmatch(r"cp3\d+", python) and int(python[3:]) <= minor
    if not stable and (python, abi) not in ((own, own), ("py3", "none")):
        return False
    if machine in ("any", f"linux_{architecture}"):
        return True
    legacy = {"manylinux1": "2_5", "manylinux2010": "2_12", "manylinux2014": "2_17"}
    for old, new in legacy.items():
        machine = machine.replace(f"{old}_", f"manylinux_{new}_")
    match = re.fullmatch(rf"manylinux_(\d+)_(\d+)_{architecture}", machine)
    return match is not None and (int(match[1]), int(match[2])) <= libc


def _download(
    names: Sequence[str], architecture: str, python_version: str, libc: tuple[int, int]
) -> None:
    """Let pip fetch wheels, of this machine's own versions where there are such."""
    folder = _fetched(architecture, python_version)
    newest = min(libc[1], 39)
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(newest, 16, -1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--implementation", "cp", "--python-version", python_version]
    for name in (*platforms, f"manylinux2014_{architecture}"):
        command += ["--platform", name]
    for name in names:
        with tempfile.TemporaryDirectory(prefix="distill-") as fresh:
            for wanted in _preferred(name):
                done = subprocess.run(
                    [*command, "--dest", fresh, wanted],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode == 0:
                    break
            else:
                lines = done.stderr.strip().splitlines() or ["pip said nothing"]
                said = without_passwords(lines[-1])  # of an index's URL
                raise UserError(
                    f"Expected pip to fetch {name} for Python {python_version} on {architecture} "
                    f"but it could not: {said} Put the wheels in a folder and give "
                    "`wheels=<folder>`."
                )
            folder.mkdir(parents=True, exist_ok=True)
            for path in Path(fresh).glob("*.whl"):
                arriving = folder / f".tmp-{os.getpid()}-{path.name}"
                shutil.copyfile(path, arriving)
                arriving.replace(folder / path.name)


def _preferred(name: str) -> list[str]:
    try:
        return [f"{name}=={distribution(name).version}", name]
    except PackageNotFoundError:
        return [name]


def _lacking(what: str, wheels: Path | None) -> str:
    if wheels is None:
        return (
            f"Expected wheels of {what} but this machine keeps none, and nothing is fetched unless "
            "asked. Set `download=true` to let pip fetch them, or give `wheels=<folder>`."
        )
    there = ", ".join(sorted(path.name for path in wheels.glob("*.whl"))) or "none"
    return (
        f"Expected wheels of {what} in {wheels} but found {there}. Put them there, or ask for them "
        "with `download=true` and without `wheels=`."
    )


def _fetched(architecture: str, python_version: str) -> Path:
    return cache_folder("wheels") / f"{architecture}-cp{python_version.replace('.', '')}"
