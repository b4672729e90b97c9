"""How many labels each strategy of `feedback` saves against asking at random, in a new world.

A student that has learnt from its teacher in the old world meets a new one. Labels are bought in
rounds, 10 to 320 in all; in each the student now in service chooses among what is not labelled yet,
and is trained anew on the old rows and all that was bought. It is scored on rows of the new world
that nobody chooses from. Knows arrays alone; where they come from is the callers' matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import check, spread
from lifecycle_estimates import digits_teacher, flat, shifts
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from distill.files import read_json, write_json
from distill.pages import svg
from distill.production.feedback.acquisition import (
    Pool,
    Strategy,
    badge,
    bald,
    core_set,
    disagreement,
    entropy,
    least_confidence,
    margin,
)

SEEDS, DRAWS, MEMBERS = range(5), 3, 3
BUDGETS = (10, 20, 40, 80, 160, 320)
TARGETS, HEADLINE = (40, 80, 160), 80  # labels at random whose accuracy is to be reached
WORLDS = ("new population", "rotation", "strong noise")
HIDDEN, STEPS, RATE = 64, 150, 0.02
RANDOM, AGAIN, DEFAULT = "random", "random, once more", "margin"
STRATEGIES: dict[str, Strategy] = {
    "least confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "BALD": bald,
    "core-set": core_set,
    "BADGE": badge,
    "KL(teacher, student)": disagreement,
}

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One seed's rows: inputs are [n, D], targets and logits [n, C], labels [n]."""

    seed: int
    world: str
    old: Array
    old_targets: Array
    pool: Array
    pool_labels: Array
    teacher_logits: Array  # of the pool; the teacher stays as it was
    test: Array
    test_labels: Array


class Students:
    """A few networks of one hidden layer that differ in where they began, trained at once.

    The first is the one in service; all are scored, and are the ensemble that BALD asks.
    """

    def __init__(self, inputs: Array, targets: Array, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        num_inputs, num_classes = inputs.shape[1], targets.shape[1]
        self._parts = [
            torch.randn(MEMBERS, num_inputs, HIDDEN, generator=generator) * num_inputs**-0.5,
            torch.zeros(MEMBERS, 1, HIDDEN),
            torch.randn(MEMBERS, HIDDEN, num_classes, generator=generator) * HIDDEN**-0.5,
            torch.zeros(MEMBERS, 1, num_classes),
        ]
        for part in self._parts:
            part.requires_grad_()
        x, y = (torch.tensor(a, dtype=torch.float32) for a in (inputs, targets))
        optimizer = torch.optim.Adam(self._parts, RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            logits = self._forward(x)[1].flatten(0, 1)
            # Times their number: each member's gradient is what it would be alone.
            loss = torch.nn.functional.cross_entropy(logits, y.repeat(MEMBERS, 1)) * MEMBERS
            loss.backward()
            optimizer.step()

    def _forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, bias, last, end = self._parts
        hidden = torch.relu(torch.baddbmm(bias, x.expand(MEMBERS, *x.shape), first))
        return hidden, torch.baddbmm(end, hidden, last)

    @torch.no_grad()
    def __call__(self, inputs: Array) -> tuple[Array, Array]:
        """Return the first one's hidden features [n, D], and all logits [members, n, C]."""
        hidden, logits = self._forward(torch.tensor(inputs, dtype=torch.float32))
        return hidden[0].numpy(), logits.numpy()

    def accuracy(self, scene: Scene) -> float:
        """Score on the rows that nobody chooses from, the mean over members."""
        return float((self(scene.test)[1].argmax(axis=2) == scene.test_labels).mean())


def curve(scene: Scene, strategy: Strategy | None, first: Students, draw: int = 0) -> list[float]:
    """Buy labels round by round, at random without a strategy; the accuracy after each."""
    order = np.random.default_rng([scene.seed, draw]).permutation(len(scene.pool))
    students, bought, found = first, np.empty(0, int), []
    one_hot = np.eye(scene.old_targets.shape[1])
    for budget in BUDGETS:
        if strategy is None:
            bought = order[:budget]
        else:
            left = np.setdiff1d(order, bought)
            features, logits = students(scene.pool[left])
            known, answers = students(scene.pool[bought])
            asked = Pool(logits=answers[0], embedding=known)
            pool = Pool(
                logits=logits[0],
                embedding=features,
                teacher_logits=scene.teacher_logits[left],
                member_logits=logits,
                asked=lambda asked=asked: asked,
                seed=scene.seed,
            )
            picked = [place for place, _ in islice(strategy(pool), budget - len(bought))]
            bought = np.concatenate([bought, left[picked]])
        students = Students(
            np.concatenate([scene.old, scene.pool[bought]]),
            np.concatenate([scene.old_targets, one_hot[scene.pool_labels[bought]]]),
            scene.seed,
        )
        found.append(students.accuracy(scene))
    return found


def labels_for(wanted: float, accuracies: Sequence[float]) -> float | None:
    """Labels by which a curve first reaches an accuracy, straight between rounds.

    Args:
        wanted: a fraction.
        accuracies: without a label, then at each of `BUDGETS`.

    Returns:
        None where it does not within the largest budget.
    """
    counts = (0, *BUDGETS)
    for place, accuracy in enumerate(accuracies):
        if accuracy >= wanted:
            if not place:
                return 0.0
            below = accuracies[place - 1]
            share = (wanted - below) / (accuracy - below)
            return counts[place - 1] + share * (counts[place] - counts[place - 1])
    return None


def compared(scenes: Iterable[Scene], data: str, work: Path) -> tuple[list[dict], list[dict]]:
    """Run every strategy in every scene, and hold it against random labels.

    Curves are kept in the working folder scene by scene; those that are there are not run again.
    """
    path = work / f"active_{data}.json"
    kept = read_json(path) if path.exists() else {}
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for scene in scenes:
        key = f"{scene.world}, seed {scene.seed}"
        if key not in kept:
            kept[key] = _curves(scene)
            write_json(path, kept)
        for name, accuracies in kept[key].items():
            curves.setdefault(scene.world, {}).setdefault(name, []).append(accuracies)
    rows = [_row(data, world, name, own) for world, own in curves.items() for name in own]
    checks = []
    for row in rows:
        found = row["ratios"][str(HEADLINE)]
        if row["strategy"] == DEFAULT and not found["nothing_gained"]:
            name = f"{data}, {row['world']}: labels at random over those by {DEFAULT}, median"
            checks.append(check(name, found["median"], 1.0))
    return rows, checks


def _curves(scene: Scene) -> dict[str, list[float]]:
    """Score without a label of the new world, then after each round, by strategy."""
    first = Students(scene.old, scene.old_targets, scene.seed)
    draws = [curve(scene, None, first, draw) for draw in range(DRAWS + 1)]
    found = {RANDOM: [float(v) for v in np.mean(draws[1:], axis=0)], AGAIN: draws[0]}
    found |= {name: curve(scene, each, first) for name, each in STRATEGIES.items()}
    start = first.accuracy(scene)
    return {n: [round(value, 6) for value in (start, *own)] for n, own in found.items()}


def _row(data: str, world: str, name: str, own: dict[str, list[list[float]]]) -> dict:
    return {
        "data": data,
        "world": world,
        "strategy": name,
        "budgets": [0, *BUDGETS],
        "accuracy": [float(v) for v in np.mean(own[name], axis=0)],
        "accuracies": own[name],
        "ratios": {str(target): _ratio(target, own[RANDOM], own[name]) for target in TARGETS},
    }


def _ratio(target: int, random: list[list[float]], mine: list[list[float]]) -> dict:
    """Say how many times as many labels random ones must be, over the seeds.

    A seed in which they gain nothing has no ratio, and it is said how many these are. A curve that
    does not get there counts as if the largest budget sufficed: too kind, so they are counted, too.
    Nor are ratios told apart that a smaller budget than the smallest would give.
    """
    place = 1 + BUDGETS.index(target)
    gained = [(r[place], m) for r, m in zip(random, mine, strict=True) if r[place] > r[0]]
    needed = [labels_for(wanted, own) for wanted, own in gained]
    each = [target / max(BUDGETS[-1] if n is None else n, BUDGETS[0]) for n in needed]
    found = spread(each) if each else {"median": None, "range": None, "num_rounds": 0}
    missed = {"not_reached": needed.count(None), "nothing_gained": len(random) - len(gained)}
    return found | {"each": each} | missed


def digits_rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Compare on scikit-learn's digits."""
    scenes = _digits(1 if quick else len(SEEDS), WORLDS[: 1 if quick else None])
    return compared(scenes, "digits", work)


def _digits(num_seeds: int, worlds: Sequence[str]) -> Iterable[Scene]:
    digits = load_digits()
    images, labels = digits.images / 16.0, digits.target.astype(np.int64)
    for seed in list(SEEDS)[:num_seeds]:
        order = np.random.default_rng(seed).permutation(len(labels))
        old, pool, test = order[:400], order[400:1200], order[1200:]
        teacher = digits_teacher(flat(images[old]), labels[old], seed)
        soft = teacher(images[old])
        for world in worlds:
            change = shifts(np.random.default_rng(100 + seed))[world]
            asked, asked_labels = change(images[pool], labels[pool])
            held, held_labels = change(images[test], labels[test])
            yield Scene(
                seed=seed,
                world=world,
                old=flat(images[old]),
                old_targets=soft,
                pool=flat(asked),
                pool_labels=asked_labels,
                teacher_logits=np.log(np.maximum(teacher(asked), 1e-6)),
                test=flat(held),
                test_labels=held_labels,
            )


def picture(rows: list[dict]) -> Markup:
    """Draw accuracy by labels, a panel for each world; random labels with the range of seeds."""
    worlds = list(dict.fromkeys(row["world"] for row in rows))

    def draw(canvas: Any) -> None:
        panels = canvas.subplots(1, len(worlds), squeeze=False)[0]
        for panel, world in zip(panels, worlds, strict=True):
            for row in (row for row in rows if row["world"] == world and row["strategy"] != AGAIN):
                x, is_random = row["budgets"][1:], row["strategy"] == RANDOM
                style = {"color": "black", "linewidth": 2.5} if is_random else {"linewidth": 1.3}
                panel.plot(x, row["accuracy"][1:], label=row["strategy"], **style)
                if is_random:
                    each = np.array(row["accuracies"])[:, 1:]
                    panel.fill_between(x, each.min(axis=0), each.max(axis=0), color="#e6e8eb")
            panel.set_xscale("log", base=2)
            panel.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
            panel.set_title(f"{rows[0]['data']}: {world}", fontsize=10)
            panel.set_xlabel("labels of the new world")
        panels[0].set_ylabel("accuracy in the new world")
        panels[-1].legend(fontsize=8)

    title = "Accuracy by the number of labels, for each strategy"
    drawn = svg(draw, width=4 * len(worlds) + 0.5, height=3.6, title=title)
    return drawn.replace("<svg ", Markup('<svg style="background: white" '), 1)
