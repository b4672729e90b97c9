"""int8 of a finished run: what `quantize=auto` chose, how fast it is and what it costs."""

from pathlib import Path

from common import check

from distill.files import read_json


def rows(run_dir: Path) -> tuple[list[dict], list[dict]]:
    """Read a run folder of a pipeline or an export with `quantize=auto`."""
    raise NotImplementedError(run_dir, check, read_json)
