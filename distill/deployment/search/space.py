"""A space of students, and the candidates in it: families, each with a grid of choices.

Plain values in, plain values out; knows nothing of networks, nor of what a candidate is worth.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import UserError

Choices = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One student that may be trained.

    Attributes:
        name: for people: the family, and what was chosen of its grid.
        student: `_target_` and arguments, as in `conf/student`.
    """

    name: str
    student: dict[str, Any]

    @property
    def slug(self) -> str:
        """The name as a part of a path."""
        return slug(self.name)


def slug(name: str) -> str:
    """Write a name so that it can be a part of a path."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)


def candidates(space: Mapping[str, Any], max_candidates: int, seed: int) -> list[Candidate]:
    """List the candidates of a space; of more than `max_candidates`, as many drawn at random.

    Args:
        space: family to `student`, a node as in `conf/student`, and `grid`, which has a list of
            choices for each keyword; a family without a grid is one candidate.
        max_candidates: of a larger space, Optuna draws so many different ones.
        seed: of the draw.

    Raises:
        UserError: the space is empty or malformed, or says the same student twice.
    """
    grids = {name: _grid(name, family) for name, family in space.items()}
    counts = {name: math.prod(map(len, grid.values())) for name, grid in grids.items()}
    if not any(counts.values()):
        raise UserError(
            "Expected a space of at least one student but it is empty. Name families below "
            "`space:`, each with a `student` and lists of choices in its `grid` (see conf/space)."
        )
    if sum(counts.values()) > max_candidates:
        picks = _drawn(grids, max_candidates, seed)
    else:
        picks = [
            (name, dict(zip(grid, choice, strict=True)))
            for name, grid in grids.items()
            for choice in itertools.product(*grid.values())
        ]
    found = [_candidate(name, space[name]["student"], chosen) for name, chosen in picks]
    _refuse_twins(found)
    return found


def _grid(name: str, family: Any) -> Choices:
    """Read the grid of a family."""
    if not isinstance(family, Mapping) or not isinstance(family.get("student"), Mapping):
        raise UserError(
            f"Expected `space.{name}` to have a `student` with a `_target_` but got {family}. "
            "Write it as the files in conf/space do."
        )
    unknown = sorted(set(family) - {"student", "grid"})
    if unknown or "_target_" not in family["student"]:
        raise UserError(
            f"Expected `space.{name}` to hold `student` (with a `_target_`) and `grid` alone but "
            f"got {', '.join(unknown) or 'no `_target_`'}. Put arguments below `student`, and "
            "lists of choices below `grid`."
        )
    grid = family.get("grid") or {}
    if not isinstance(grid, Mapping):
        raise UserError(f"Expected `space.{name}.grid` to map keywords to lists but got {grid}.")
    for keyword, choices in grid.items():
        if not isinstance(choices, list):
            raise UserError(
                f"Expected `space.{name}.grid.{keyword}` to be a list of choices but got "
                f"{choices!r}. Write one choice as [{choices}]."
            )
    return grid


def _drawn(grids: Mapping[str, Choices], count: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Draw different members of a space too large to list."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    families = sorted(name for name, grid in grids.items() if all(grid.values()))
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    while len(found) < count:
        trial = study.ask()
        name = trial.suggest_categorical("family", families)
        chosen = {
            keyword: choices[trial.suggest_int(f"{name}.{keyword}", 0, len(choices) - 1)]
            for keyword, choices in grids[name].items()
        }
        found.setdefault(str(trial.params), (name, chosen))
        study.tell(trial, 0.0)
    return list(found.values())


def _candidate(family: str, student: Mapping[str, Any], chosen: Mapping[str, Any]) -> Candidate:
    words = [family]
    words += [f"{keyword}={_text(value)}" for keyword, value in chosen.items() if value is not None]
    arguments = {**student, **{k: v for k, v in chosen.items() if v is not None or k in student}}
    return Candidate(name=" ".join(words), student=arguments)


def _text(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def _refuse_twins(found: Sequence[Candidate]) -> None:
    for number, candidate in enumerate(found):
        for other in found[:number]:
            if candidate.student == other.student:
                raise UserError(
                    f"Expected different students in `space` but `{other.name}` and "
                    f"`{candidate.name}` are the same. Leave one out."
                )
            if candidate.slug.lower() == other.slug.lower():
                raise UserError(
                    f"Expected students with different names but two are `{candidate.name}`. "
                    "Rename a family."
                )
