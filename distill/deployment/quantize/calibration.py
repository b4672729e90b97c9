"""The ranges that activations take, from streamed batches: nothing grows with the samples.

One pass finds each tensor's lowest and highest value, a second one counts its values into bins of
equal width; only one batch of activations is alive at a time. Knows nothing of how ranges are
turned into scales.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from distill.deployment.quantize.graph import float_tensors, preprocessing_nodes
from distill.runtime import OnnxModel

NUM_BINS = 2049  # over plus and minus the largest magnitude; odd, so that zero is a bin's middle
NUM_LEVELS = 255  # of the quantised distribution: 128 from zero to either end, as in TensorRT

Range = tuple[float, float]
Batches = Iterator[dict[str, NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often a tensor takes which values.

    Attributes:
        lowest: value seen.
        highest: value seen.
        counts: [bins], over -limit to limit, where limit is the largest magnitude.
    """

    lowest: float
    highest: float
    counts: NDArray[np.int64]

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' ends, [bins + 1]."""
        limit = max(abs(self.lowest), abs(self.highest))
        return np.linspace(-limit, limit, len(self.counts) + 1)


class Activations:
    """A model's float activations on calibration images; each pass runs once, when it is asked for.

    Args:
        model: ONNX file with inferred shapes.
        images: uint8 [N, H, W, C].
        batch_size: of the runs.
    """

    def __init__(self, model: Path, images: NDArray[np.uint8], *, batch_size: int) -> None:
        self._model, self._images, self._batch_size = model, images, batch_size
        self._ranges: dict[str, Range] = {}
        self._histograms: dict[str, Histogram] = {}

    def batches(self) -> Batches:
        """Yield every batch's activations by tensor name."""
        proto = onnx.load(self._model)
        tensors = float_tensors(proto.graph, outside=preprocessing_nodes(proto.graph))
        own = {output.name for output in proto.graph.output}
        proto.graph.output.extend(tensor for tensor in tensors if tensor.name not in own)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "observed.onnx"
            onnx.save(proto, path)
            model = OnnxModel(path, num_threads=2)
        names = [tensor.name for tensor in tensors]
        for start in range(0, len(self._images), self._batch_size):
            batch = self._images[start : start + self._batch_size]
            values = model.session.run(names, model.prepared(batch))
            yield dict(zip(names, map(np.asarray, values), strict=True))

    @property
    def ranges(self) -> dict[str, Range]:
        """Lowest and highest value of each tensor."""
        if not self._ranges:
            for values in self.batches():
                for name, array in values.items():
                    low, high = self._ranges.get(name, (np.inf, -np.inf))
                    ends = float(array.min()), float(array.max())
                    self._ranges[name] = min(low, ends[0]), max(high, ends[1])
        return self._ranges

    @property
    def histograms(self) -> dict[str, Histogram]:
        """How each tensor's values are distributed."""
        if not self._histograms:
            limits = {name: max(map(abs, ends)) for name, ends in self.ranges.items()}
            counts = {name: np.zeros(NUM_BINS, np.int64) for name in limits}
            for values in self.batches():
                for name, array in values.items():
                    counts[name] += bin_counts(array, limits[name], NUM_BINS)
            self._histograms = {
                name: Histogram(lowest=low, highest=high, counts=counts[name])
                for name, (low, high) in self.ranges.items()
            }
        return self._histograms


def bin_counts(values: NDArray[np.floating], limit: float, num_bins: int) -> NDArray[np.int64]:
    """Count values into bins of equal width from -limit to limit, [num_bins]."""
    if limit == 0:
        counts = np.zeros(num_bins, np.int64)
        counts[num_bins // 2] = values.size
        return counts
    places = (values.ravel() + np.float32(limit)) * np.float32(num_bins / (2 * limit))
    places = np.clip(places.astype(np.int64), 0, num_bins - 1)
    return np.bincount(places, minlength=num_bins)


def minmax(activations: Activations, percentile: float) -> dict[str, Range]:
    """Take everything that was seen; `percentile` is not looked at."""
    return activations.ranges


def percentile_ranges(activations: Activations, percentile: float) -> dict[str, Range]:
    """Take the middle `percentile` per cent of the values, half of the rest cut off either end."""
    return {
        name: percentile_range(histogram, percentile)
        for name, histogram in activations.histograms.items()
    }


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """Cut what lies outside the middle `percentile` per cent, to a bin."""
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (100 - percentile) / 200
    first = int(np.searchsorted(shares, cut, side="right"))
    last = int(np.searchsorted(shares, 1 - cut - 1e-12))
    edges = histogram.edges
    return max(edges[first], histogram.lowest), min(edges[last + 1], histogram.highest)


def entropy_ranges(activations: Activations, percentile: float) -> dict[str, Range]:
    """Clip where the least information is lost; `percentile` is not looked at."""
    return {name: entropy_range(found) for name, found in activations.histograms.items()}


def entropy_range(histogram: Histogram, num_levels: int = NUM_LEVELS) -> Range:
    """Choose the symmetric clipping whose quantised distribution is nearest in KL divergence.

    For each number of bins i around zero, P is the histogram with what lies outside added to its
    ends, and Q the same bins merged into `num_levels` levels and spread evenly again over those of
    them that hold something; the i with the smallest KL(P || Q) wins. Migacz, "8-bit Inference with
    TensorRT", 2017. Bins empty in Q alone count as one ten-thousandth of a sample.
    """
    counts = histogram.counts.astype(np.float64)
    middle, edges = len(counts) // 2, histogram.edges
    best, chosen = np.inf, middle
    for half in range(num_levels // 2, middle + 1):
        divergence = _divergence(counts, middle - half, middle + half + 1, num_levels)
        if divergence < best:
            best, chosen = divergence, half
    low, high = edges[middle - chosen], edges[middle + chosen + 1]
    return max(low, histogram.lowest), min(high, histogram.highest)


def _divergence(counts: NDArray[np.float64], start: int, end: int, num_levels: int) -> float:
    inside = counts[start:end]
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[end:].sum()
    starts = np.arange(num_levels) * (len(inside) // num_levels)  # the last level takes the rest
    level = np.repeat(np.arange(num_levels), np.diff(np.append(starts, len(inside))))
    totals = np.add.reduceat(inside, starts)
    holders = np.add.reduceat((p > 0).astype(np.float64), starts)
    q = np.where(p > 0, totals[level] / np.maximum(holders[level], 1), 0)
    if not q.any():
        return np.inf
    held = p > 0
    q = np.maximum(q[held], 1e-4)
    p = p[held] / p[held].sum()
    return float(np.sum(p * np.log(p / (q / q.sum()))))


METHODS: Mapping[str, Callable[[Activations, float], dict[str, Range]]] = {
    "minmax": minmax,
    "percentile": percentile_ranges,
    "entropy": entropy_ranges,
}


def tensors_data(ranges: Mapping[str, Range]) -> TensorsData:
    """Hand ranges to onnxruntime's quantiser, whichever method found them."""
    data: dict[str, TensorData | tuple] = {
        name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)
