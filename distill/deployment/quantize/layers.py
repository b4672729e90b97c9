"""Which layers of an int8 model to leave in float: plain numbers in, decisions out.

A layer is worth int8 where it buys latency, and is given back to float where it costs accuracy:
first what buys nothing, then what costs most accuracy for the latency it buys. Knows nothing of
files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a model is like with a few layers in float.

    Attributes:
        layers: in float.
        error: mean square error of its logits.
        ratio: of its latency to float32.
    """

    layers: tuple[str, ...]
    error: float
    ratio: float


def in_groups(layers: Sequence[str], max_groups: int) -> list[tuple[str, ...]]:
    """Cut layers into at most `max_groups` runs of neighbours, as even as can be.

    Neighbours in float pass activations on without converting them twice.
    """
    num_groups = min(max_groups, len(layers))
    ends = [round(len(layers) * i / num_groups) for i in range(num_groups + 1)] if layers else []
    return [tuple(layers[start:end]) for start, end in pairwise(ends)]


def exclusions(
    *, error: float, ratio: float, probes: Sequence[Probe], noise: float = 0.0
) -> list[tuple[str, ...]]:
    """List ever larger sets of layers to leave in float, while the model stays faster than float32.

    Errors of layers are taken to add up, as independent noise does, and so are times.

    Args:
        error: mean square error of the logits of the whole int8 model.
        ratio: its latency over that of float32.
        probes: each with one group of layers in float.
        noise: of a ratio; int8 buys nothing where it buys less.

    Returns:
        The first set is of the layers where int8 buys no latency and costs accuracy or time; each
        further one adds the group that costs most accuracy per latency bought. None predicted to be
        as slow as float32.
    """
    saved = {probe.layers: error - probe.error for probe in probes}
    price = {probe.layers: probe.ratio - ratio for probe in probes}
    free = [g for g in saved if price[g] <= noise and (saved[g] > 0 or price[g] < -noise)]
    paid = [g for g in saved if price[g] > noise and saved[g] > 0]
    paid.sort(key=lambda group: saved[group] / price[group], reverse=True)
    steps = [free, *([group] for group in paid)]
    sets: list[tuple[str, ...]] = []
    excluded: tuple[str, ...] = ()
    predicted = ratio
    for step in steps:
        excluded += tuple(layer for group in step for layer in group)
        predicted += sum(price[group] for group in step)
        if excluded and predicted < 1:
            sets.append(excluded)
    return sets
