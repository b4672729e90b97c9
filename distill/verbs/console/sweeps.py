"""Multirun: one job after the other, as Hydra's own sweeper has them; nothing is written of it.

Hydra's leaves the whole configuration, passwords and all, in a file. Each job's run folder has it,
its secrets blanked.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn

from distill.errors import UsageError

ONCE = {  # verbs that a sweep is not made of, and why
    "serve": "it answers until it is stopped",
    "feedback": "each time goes on from what the one before has left",
}
_OPTION = "--multirun"
_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def check_sweep(verb: str, overrides: Sequence[str]) -> bool:
    """Find out whether a command asks for one run for each value.

    Raises:
        UsageError: it does, of a verb that is for one run.
    """
    asked = any(
        one == "-m"
        or (one.startswith("--m") and _OPTION.startswith(one))  # options may be cut short
        or one.lower() == "hydra.mode=multirun"
        for one in overrides
    )
    if asked and verb in ONCE:
        raise UsageError(
            f"Expected `{verb}` without -m but got it: {ONCE[verb]}. Run it once for each value."
        )
    return asked


def write_no_sweep() -> None:
    """Let Hydra's own sweeper sweep as here; it takes none from a package like this."""
    sweeper: Any = Plugins.instance().class_name_to_class[_BASIC]
    sweeper.sweep = _sweep


def _sweep(self: Any, arguments: list[str]) -> list[Sequence[JobReturn]]:
    """Run all jobs; return what they return, in batches."""
    parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
    overrides = parser.parse_overrides([*self._parse_config(), *arguments])
    self.overrides = self.split_arguments(_joined(overrides), self.max_batch_size)
    known = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(self.config)  # the folder may be named after the verb
    try:
        return _launched(self)
    finally:
        HydraConfig.instance().cfg = known


def _launched(self: Any) -> list[Sequence[JobReturn]]:
    returns: list[Sequence[JobReturn]] = []
    while not self.is_done():
        batch = self.get_job_batch()
        self.validate_batch_is_legal(batch)
        started = sum(map(len, returns))
        returns.append(self.launcher.launch(batch, initial_job_idx=started))
        for job in returns[-1]:
            _ = job.return_value  # raises what the job raised
    return returns


def _joined(overrides: Sequence[Override]) -> list[Override]:
    """Join dictionaries given under one key, as a single run does; else the last counts."""
    found: dict[str, Override] = {}
    for own in overrides:
        key = own.get_key_element()
        before = found[key]._value if key in found else None
        if isinstance(before, dict) and isinstance(own._value, dict):
            own._value = {**before, **own._value}
        found[key] = own
    return [*found.values()]
