"""What the verbs of one run share: the run folder, the data, and stages that run once.

Also the one place where the configuration is written out, its secrets redacted.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from distill.budget import Budget, parse_budget
from distill.errors import UsageError, UserError
from distill.files import write_text
from distill.redaction import without_secrets
from distill.run_folder import Stage, run_folder_lock
from distill.statistics.scoring import Scoring, scoring_of
from distill.tasks import TaskKind
from distill.verbs.run.command import CONFIG, check_same_run, header
from distill.verbs.run.own_code import with_own_code
from distill.verbs.run.ranks import agree, launched

if TYPE_CHECKING:
    from distill.training.data.images import ImageData
    from distill.training.data.splits import Data

log = logging.getLogger(__name__)

OUTPUTS = {
    TaskKind.CLASSIFICATION: "classes",
    TaskKind.MULTI_LABEL: "labels",
    TaskKind.REGRESSION: "numbers",
}
QUANTILES = "quantiles"  # a part for these, where they are asked for, goes before that of numbers


@dataclass(frozen=True)
class Workspace:
    """One locked run folder and the configuration that works on it."""

    cfg: DictConfig
    run_dir: Path
    console: Console

    @property
    def leads(self) -> bool:
        """Whether this process is the one that decides and writes."""
        return launched().leads

    @cached_property
    def budget(self) -> Budget:
        """The limits; an unknown field is refused."""
        return parse_budget(OmegaConf.to_container(self.cfg.budget, resolve=True))

    @cached_property
    def data(self) -> "Data":
        """The data set, read once, with a progress bar where reading takes long."""
        start = time.monotonic()
        hidden = not is_terminal()
        with Progress(console=self.console, transient=True, disable=hidden) as progress:
            task = progress.add_task("reading data", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            node = self.cfg.data
            takes_time = "skip_corrupt" in node  # these decode files
            data = instantiate(node, _convert_="all", **({"progress": show} if takes_time else {}))
        log.info(
            "data: %s, %d %s, %d training, %d validation and %d test %s%s (%.1f s)",
            data.name,
            len(data.task.outputs),
            OUTPUTS[data.task.kind],
            len(data.train),
            len(data.validation),
            len(data.test),
            data.what,
            f", {data.num_skipped} corrupt ones skipped" if data.num_skipped else "",
            time.monotonic() - start,
        )
        return data

    @cached_property
    def scoring(self) -> Scoring:
        """The figures of the data's task, by the metric of the budget."""
        accuracy = self.budget.accuracy
        scoring = scoring_of(self.data.task, accuracy.metric)
        wrong, right = ("min", "max") if scoring.is_error else ("max", "min")
        if getattr(accuracy, wrong) is not None:
            raise UsageError(
                f"Expected `budget.accuracy.{right}` as the limit of {scoring.metric} but got "
                f"`budget.accuracy.{wrong}`. Set that to null."
            )
        scoring.check(self.data.test.truth)
        return scoring

    def of_task(self, group: str) -> DictConfig:
        """Take a part of the configuration, or what it has for the data's task.

        Raises:
            UsageError: it has parts for tasks, and none for this one.
        """
        node = self.cfg.get(group) or OmegaConf.create()
        if not node or not {*map(str, node)} <= {*TaskKind, QUANTILES}:
            return node
        task = self.data.task
        if task.quantiles and QUANTILES in node:
            return node[QUANTILES]
        kind = task.kind
        if kind not in node:
            raise UsageError(
                f"Expected `{group}` for {kind.replace('_', ' ')} but it has parts for "
                f"{', '.join(map(str, node))} alone. Choose others."
            )
        return node[kind]

    @property
    def images(self) -> "ImageData":
        """The data, which have to be images.

        Raises:
            UserError: they are a table, or a series.
        """
        from distill.training.data.images import ImageData

        if not isinstance(self.data, ImageData):
            raise UserError(f"Expected images for this but {self.data.name} has {self.data.what}.")
        return self.data

    def changed(self, cfg: DictConfig, data: "Data | None" = None) -> "Workspace":
        """Work in the same folder with another configuration, or data; none is read again."""
        own = Workspace(cfg, self.run_dir, self.console)
        own.__dict__["data"] = self.data if data is None else data  # the cached property
        return own

    def stage(
        self,
        name: str,
        compute: Callable[[], dict[str, Any]],
        *,
        values: Mapping[str, Any],
        inputs: tuple[Path, ...] = (),
        outputs: tuple[str, ...] = (),
        together: bool = False,
        again: Callable[[dict[str, Any]], bool] = lambda result: False,
    ) -> dict[str, Any]:
        """Run a stage, or return what it left if nothing that it depends on has changed.

        What the values name of the user's own code counts, too. `again` says of a result that is
        there whether it is to be had anew all the same.

        Of several processes the leader runs it alone, or all do where it is done `together`; what
        the others compute is not looked at.
        """
        start = time.monotonic()
        self.console.rule(f"[bold]{name}", align="left")
        own = Stage(name=name, values=with_own_code(values), inputs=inputs, outputs=outputs)
        result = own.finished(self.run_dir) if self.leads else None
        result = agree(None if result is None or again(result) else result)
        if result is not None:
            log.info("%s: unchanged, not run again", name)
            return result
        if self.leads:
            result = own.run(self.run_dir, compute)
        elif together:
            compute()
        log.info("%s: %.1f s", name, time.monotonic() - start)
        return agree(result)


@contextmanager
def open_workspace(
    cfg: DictConfig, data: "Data | None" = None, *, trains: bool = False
) -> Iterator[Workspace]:
    """Check what can be checked at once, lock the run folder and write its `config.yaml`.

    Args:
        cfg: of the run.
        data: where it was read before.
        trains: what does not, leaves the configuration of a training as it is.
    """
    run_dir = Path(cfg.run_dir)
    workspace = Workspace(cfg, run_dir, Console(stderr=True, quiet=not launched().leads))
    if data is not None:
        workspace.__dict__["data"] = data
    if "budget" in cfg:
        _ = workspace.budget
    check_same_run(cfg)
    if not workspace.leads:
        yield workspace
        return
    with run_folder_lock(run_dir):
        log.info("run folder: %s", run_dir)
        if "data" in cfg:
            _ = workspace.data
        if not (run_dir / "manifests" / "train").exists() or trains:
            text = header(run_dir) + OmegaConf.to_yaml(redacted(cfg))
            write_text(run_dir / CONFIG, text)
        yield workspace


def plain(node: Any) -> Any:
    """Resolve a part of the configuration to plain values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


@contextmanager
def named_in_errors(group: str) -> Iterator[None]:
    """Turn a class's refusal of its arguments into a message that names the config group."""
    try:
        yield
    except Exception as error:
        # By its name: importing Lightning takes seconds, and measuring has no need of it.
        refused = type(error).__name__ == "MisconfigurationException"
        if not refused and not isinstance(
            error, TypeError | ValueError | AttributeError | RuntimeError
        ):
            raise
        raise UsageError(
            f"Expected `{group}` to be usable as configured but it is refused: {error}. "
            f"See its values with `--cfg job -p {group}`."
        ) from error


def redacted(cfg: DictConfig) -> DictConfig:
    """Copy a configuration with its secrets blanked."""
    return DictConfig(without_secrets(plain(cfg)))


def is_terminal() -> bool:
    """Whether someone is watching stderr."""
    return sys.stderr.isatty()
