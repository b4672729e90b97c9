"""A pipeline on file systems that are too small, and then on the same ones when they have grown."""

import os
import shutil
import subprocess
from pathlib import Path

from common import check
from endurance_kills import (
    BRIEF,
    FINISHED,
    command,
    differences,
    import_all,
    outcome,
    unreadable,
)

SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of what a whole run takes
QUICK = (0.1, 0.6)


def rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Let the disk be full at each share of a run, look at what is left, make room, go on."""
    if os.geteuid() != 0:
        raise SystemExit("Expected to be root, who may mount a small file system.")
    shutil.rmtree(work, ignore_errors=True)
    disk = work / "disk"
    disk.mkdir(parents=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    import_all()
    arguments = ["pipeline", *BRIEF]
    whole = command([*arguments, "run_dir=whole"], work, work / "whole.log").answer()
    if whole is None or whole.get("ok") not in FINISHED:
        raise RuntimeError(f"The pipeline does not run: {whole}")
    wanted = outcome(work / "whole")
    needed = sum(path.stat().st_blocks * 512 for path in (work / "whole").rglob("*"))
    found = []
    for share in QUICK if quick else SHARES:
        found.append(_full(work, disk, arguments, int(share * needed), wanted))
    checks = [
        check("disk full: no clear error", sum(not row["is_told"] for row in found), 0,
              at_most=True),
        check("disk full: files cut off", sum(len(row["unreadable"]) for row in found), 0,
              at_most=True),
        check("disk full: another outcome once there was room",
              sum(not row["ends_alike"] for row in found), 0, at_most=True),
    ]  # fmt: skip
    return [{"subject": "disk", "needed_bytes": needed, "sizes": found}], checks


def _full(work: Path, disk: Path, arguments: list[str], size: int, wanted: dict) -> dict:
    said, size = work / f"full_{size}.log", max(size, 65536)
    _mount(disk, f"size={size}")
    try:
        run = [*arguments, f"run_dir={disk / 'run'}"]
        answer = command(run, work, said).answer()
        text = said.read_text().replace(str(disk), "<disk>")
        row = {
            "size_bytes": size,
            "exit": answer,
            "is_told": answer == {"ok": 1} and _is_one_message(text),
            "said": [line for line in text.splitlines() if "error:" in line][-1:],
            "unreadable": unreadable(disk / "run"),
        }
        _mount(disk, "remount,size=100%")
        again = command(run, work, work / f"again_{size}.log").answer()
        ended = again is not None and again.get("ok") in FINISHED
        alike = ended and not differences(wanted, outcome(disk / "run"))
        return {**row, "again": again, "ends_alike": alike}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _is_one_message(text: str) -> bool:
    told = [line for line in text.splitlines() if line.startswith("error: ")]
    return len(told) == 1 and "disk is full" in told[0] and "Traceback" not in text


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
