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
    """What int8 does to a few layers.

    Attributes:
        layers: a group of neighbours.
        error: mean square error of the logits where they alone are int8. (What leaving them in
            float saves is no measure: errors of fixed weights may cancel each other, and then
            better layers make a worse model.)
        ratio: latency over that of float32 where they alone are float.
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
    ratio: float, probes: Sequence[Probe], *, noise: float = 0.0
) -> list[tuple[str, ...]]:
    """List ever larger sets of layers to leave in float, while the model stays faster than float32.

    Args:
        ratio: latency of the whole int8 model over that of float32.
        probes: of every group of layers. Their times and errors are taken to add up.
        noise: of a ratio; int8 buys nothing where it buys less.

    Returns:
        The first set is of the layers where int8 buys no latency; each further one adds the group
        that costs most accuracy for the latency it buys. None is predicted to be as slow as
        float32, nor is float32 itself.
    """
    price = {probe.layers: probe.ratio - ratio for probe in probes}
    if all(value <= noise for value in price.values()):
        noise = 0.0  # it hides every difference: then the estimates have to do
    free = [group for group in price if price[group] <= noise]
    paid = [probe for probe in probes if price[probe.layers] > noise]
    paid.sort(key=lambda probe: probe.error / price[probe.layers], reverse=True)
    sets: list[tuple[str, ...]] = []
    excluded: tuple[str, ...] = ()
    predicted = ratio
    for step in (free, *([probe.layers] for probe in paid)):
        excluded += tuple(layer for group in step for layer in group)
        predicted += sum(price[group] for group in step)
        is_float32 = len(excluded) == sum(len(group) for group in price)
        if step and predicted < 1 and not is_float32:
            sets.append(excluded)
    return sets
