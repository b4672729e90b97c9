"""`doctor`: what this machine can do of what distill does, and what to do about the rest.

Looks and changes nothing: no folder, database or log is made, and only the servers and the device
that the configuration names are asked.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.errors import UserError
from distill.files import to_json
from distill.pages import size
from distill.redaction import without_passwords
from distill.verbs.console.findings import Finding, State
from distill.verbs.console.installed import imports_found, packages_found, python_found
from distill.verbs.run.numbers import Number, check_numbers

STYLES: dict[State, str] = {
    "good": "green", "limited": "yellow", "absent": "dim", "broken": "bold red",
}  # fmt: skip


def run(cfg: DictConfig) -> dict[str, Any]:
    """Look at everything; the verdict is `fail` where something is broken."""
    check_numbers(cfg, {"free_gb": Number(least=0)})
    console, findings = Console(stderr=True), []
    with console.status("looking") as status:
        for looked in (
            python_found(),
            packages_found(),
            imports_found(),
            _processor(),
            _disks(cfg.free_gb),
            _registry(cfg),
            _log(cfg.log.url),
            _target(cfg),
        ):
            for finding in looked:
                findings.append(finding)
                status.update(f"looked at {finding.what}")
    console.print(_table(findings))
    broken = [finding.what for finding in findings if finding.state == "broken"]
    return {
        "verdict": "fail" if broken else "pass",
        "broken": broken,
        "findings": [to_json(finding) for finding in findings],
    }


def _table(findings: list[Finding]) -> Table:
    table = Table(title="doctor", title_style="bold", show_lines=False)
    for column in ("what", "state", "found, and what to do"):
        table.add_column(column, overflow="fold")
    for one in findings:
        text = escape(one.found)
        if one.advice is not None:
            text += f"\n[{STYLES[one.state]}]{escape(one.advice)}[/]"
        table.add_row(one.what, f"[{STYLES[one.state]}]{one.state}[/]", text)
    return table


def _processor() -> Iterator[Finding]:
    from distill.deployment.device.machine import counters, describe

    facts, now = describe(), counters()
    cpus, quota = len(facts["cpus"]), facts["cpu_quota"]
    found = f"{facts['processor'] or facts['architecture']}, {cpus} CPUs for this process"
    limited = None
    if quota and not quota.startswith("max"):
        share = int(quota.split()[0]) / int(quota.split()[1])
        found += f", a quota of {share:.3g}"
        limited = "A container's quota stops threads in the middle: measure where there is none."
    yield Finding(
        what="processor", state="limited" if limited else "good", found=found, advice=limited
    )
    yield _int8(facts["architecture"], _flags())
    load = now["load"] or 0.0
    if load > cpus / 2:
        advice = (
            "Latencies measured now would be disturbed, and a training be slower than its share, "
            "for its threads wait actively: end what else is running, or train with fewer "
            "(`OMP_NUM_THREADS=1`)."
        )
        yield Finding(
            what="load", state="limited", found=f"{load:.1f} on {cpus} CPUs", advice=advice
        )
    else:
        yield Finding(what="load", state="good", found=f"{load:.1f} on {cpus} CPUs")
    governor = facts["governor"]
    if governor not in (None, "performance"):
        advice = "For steady latencies: `sudo cpupower frequency-set -g performance`."
        yield Finding(what="governor", state="limited", found=governor, advice=advice)
    yield Finding(what="memory", state="good", found=size(facts["memory_bytes"]))


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {f for line in lines if line.startswith(("flags", "Features")) for f in line.split()}


def _int8(architecture: str, flags: set[str]) -> Finding:
    """Tell how this processor multiplies eight bits."""
    known = {"avx512_vnni": "VNNI", "avx_vnni": "VNNI", "asimddp": "dot products", "i8mm": "I8MM"}
    names = dict.fromkeys(name for flag, name in known.items() if flag in flags)
    if names:
        return Finding(what="int8", state="good", found=f"by {', '.join(names)}")
    if architecture in ("x86_64", "AMD64"):
        advice = (
            "quantize=auto tries weights of 7 bits, too; for a recipe of your own set "
            "quantize.reduce_range=true."
        )
        found = "no VNNI: sums of eight bits overflow, and gain less"
        return Finding(what="int8", state="limited", found=found, advice=advice)
    return Finding(what="int8", state="limited", found="no dot products: int8 gains less here")


def _disks(free_gb: float) -> Iterator[Finding]:
    for what, folder in (
        ("disk here", Path.cwd()),
        ("temporary files", Path(tempfile.gettempdir())),
    ):
        free, wanted = shutil.disk_usage(folder).free, free_gb * 1e9
        if not os.access(folder, os.W_OK):
            advice = "Change to a folder of yours."
            found = f"{folder} cannot be written"
            yield Finding(what=what, state="broken", found=found, advice=advice)
        elif free < wanted:
            advice = f"Make room: a run may want {free_gb:g} GB."
            found = f"{size(free)} free in {folder}"
            yield Finding(what=what, state="limited", found=found, advice=advice)
        else:
            yield Finding(what=what, state="good", found=f"{size(free)} free in {folder}")


def _registry(cfg: DictConfig) -> Iterator[Finding]:
    uri = str(cfg.registry.tracking_uri)
    what, shown = "registry", without_passwords(uri)
    if importlib.util.find_spec("mlflow") is None:
        yield Finding(what=what, state="absent", found=f"not looked at: no mlflow for {shown}")
        return
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        found = f"none yet at {file}: `promote register` makes it"
        yield Finding(what=what, state="absent", found=found)
        return
    from distill.production.registry.connection import connect, talking_to

    try:
        client = connect(uri)
        with talking_to(uri):
            models = [model.name for model in client.search_registered_models(max_results=100)]
    except UserError as error:
        yield _broken(what, error)
        return
    found = f"{shown}: {len(models)} models" + (f", {', '.join(models[:5])}" if models else "")
    yield Finding(what=what, state="good", found=found)


def _log(url: str | None) -> Iterator[Finding]:
    what = "prediction log"
    if url is None or importlib.util.find_spec("sqlalchemy") is None:
        yield Finding(
            what=what, state="absent", found="not looked at: no sqlalchemy, or no log.url"
        )
        return
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.exists():
        yield Finding(what=what, state="absent", found=f"none yet at {file}: `serve` makes it")
        return
    from distill.production.prediction_log.connection import look_at

    try:
        yield Finding(what=what, state="good", found=f"{without_passwords(url)}: {look_at(url)}")
    except UserError as error:
        yield _broken(what, error)


def _target(cfg: DictConfig) -> Iterator[Finding]:
    from distill.deployment.targets.ssh import SshTarget

    what = f"target {cfg.target.get('name')}"
    try:
        target = instantiate(cfg.target)
        if not isinstance(target, SshTarget):
            yield Finding(what=what, state="good", found="needs no connection")
            return
        facts = target.probe()
        facts.check(target.host, target.num_threads)
    except UserError as error:
        yield _broken(what, error)
        return
    python = ".".join(map(str, facts.python))
    found = f"{target.host}: {facts.architecture}, {facts.cpus} CPUs, Python {python}, {facts.libc}"
    if facts.has_packages:
        yield Finding(what=what, state="good", found=found)
        return
    advice = (
        "numpy and onnxruntime are missing there and are brought along from here, or with "
        "target.wheels=FOLDER or target.download=true."
    )
    yield Finding(what=what, state="limited", found=found, advice=advice)


def _broken(what: str, error: UserError) -> Finding:
    """Say what an error says: what was expected and found, and what to do."""
    found, _, advice = str(error).partition(". ")
    return Finding(what=what, state="broken", found=found, advice=advice or None)
