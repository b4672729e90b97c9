"""What of distill is installed here: Python, packages and their extras, and whether they load."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from distill.verbs.console.findings import Finding, State

SECONDS = 120  # for a package to be imported
EXTRAS = {  # of pyproject.toml, and who wants them
    "mlflow": "the registry: promote, and serving its champion",
    "tensorboard": "logger=tensorboard",
    "openvino": "runtime=openvino",
    "serve": "serve, monitor, experiment, feedback",
    "postgres": "log.url=postgresql://...",
    "ray": "serve engine=ray",
}
_TORCH = "import torch; print(torch.__version__, torch.cuda.device_count()); " \
    "[print(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]"  # fmt: skip
_ONNXRUNTIME = "import onnxruntime; print(onnxruntime.__version__)"


def python_found() -> Iterator[Finding]:
    """Say which Python this is."""
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
    yield Finding(what="Python", state="good", found=found)  # an older one reads none of this


def packages_found() -> Iterator[Finding]:
    """Compare what is installed with what distill was installed for, its extras one by one."""
    if _version("distill") is None:
        found = "not looked at: this distill runs from a folder and was not installed"
        advice = "Run `pip install .` there."
        yield Finding(what="packages", state="limited", found=found, advice=advice)
        return
    groups: dict[str | None, list[Requirement]] = {None: [], **{extra: [] for extra in EXTRAS}}
    for text in metadata.requires("distill") or ():
        requirement = Requirement(text)
        for extra, wanted in groups.items():
            marker = requirement.marker
            holds = extra is None if marker is None else marker.evaluate({"extra": extra or ""})
            if holds and (extra is None or not _is_of_all(requirement)):
                wanted.append(requirement)
    for extra, wanted in groups.items():
        what = "packages" if extra is None else f"packages of `{extra}`"
        missing = [one.name for one in wanted if _version(one.name) is None]
        wrong = [
            f"{one.name} {found}, where {one.specifier} is asked"
            for one in wanted
            if (found := _version(one.name)) and not one.specifier.contains(found, prereleases=True)
        ]
        name = "distill" if extra is None else f"distill[{extra}]"
        install = f"Run `pip install '{name}'`, or install the lock file."
        if wrong:
            yield Finding(what=what, state="broken", found="; ".join(wrong), advice=install)
        elif missing and extra is None and "torch" in missing:
            install = f"For all other verbs: `pip install '{name}'`."
            found = "no torch: enough for serve, monitor, experiment and feedback"
            yield Finding(what=what, state="limited", found=found, advice=install)
        elif missing:
            state: State = "broken" if extra is None else "absent"
            use = "" if extra is None else f", which {EXTRAS[extra]} needs"
            found = f"no {', '.join(missing)}{use}"
            yield Finding(what=what, state=state, found=found, advice=install)
        else:
            found = (
                f"{len(wanted)} as asked for" if extra is None else f"there, for {EXTRAS[extra]}"
            )
            yield Finding(what=what, state="good", found=found)


def _is_of_all(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def imports_found() -> Iterator[Finding]:
    """Import what is compiled in a process that may die of it."""
    code, said = _asked(_ONNXRUNTIME)
    if code:
        advice = "Install it again: `pip install --force-reinstall onnxruntime`."
        yield Finding(what="onnxruntime", state="broken", found=said, advice=advice)
    else:
        yield Finding(what="onnxruntime", state="good", found=said)
    if importlib.util.find_spec("torch") is None:
        return
    code, said = _asked(_TORCH)
    if code:
        advice = "Install it again: `pip install --force-reinstall torch torchvision`."
        yield Finding(what="torch", state="broken", found=said, advice=advice)
        return
    first, *gpus = said.splitlines()
    yield Finding(what="torch", state="good", found=first.split()[0])
    if gpus:
        yield Finding(
            what="GPU", state="good", found=", ".join(gpus), advice="trainer=gpu uses it."
        )
    elif shutil.which("nvidia-smi"):
        advice = (
            "See `nvidia-smi`: the driver must be as new as torch's CUDA, and torch built for it."
        )
        yield Finding(
            what="GPU", state="limited", found="one that torch does not see", advice=advice
        )
    else:
        yield Finding(what="GPU", state="absent", found="none: trainings run on the processor")


def _asked(program: str) -> tuple[int, str]:
    """Run a program; gives its exit code and what it printed, or the last that it complained."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired:
        return 1, f"not imported within {SECONDS} s"
    if done.returncode == 0:
        return 0, done.stdout.strip()
    complaint = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return done.returncode, complaint
