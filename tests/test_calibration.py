import contextlib
import io
import weakref

import numpy as np
import pytest
import torch
from onnxruntime.quantization import CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import HistogramCollector

from distill.deployment.export import export_onnx
from distill.deployment.quantize.calibration import (
    Activations,
    Histogram,
    bin_counts,
    entropy_range,
    percentile_range,
    tensors_data,
)
from distill.deployment.quantize.graph import float_tensors, preprocessing_nodes
from distill.deployment.quantize.recipes import Source
from distill.training.models import ImageClassifier, PlainCNN

BATCH = 16


class Reader:
    """Batches as onnxruntime's own calibraters want them."""

    def __init__(self, images):
        starts = range(0, len(images), BATCH)
        self._feeds = iter([{"image": images[start : start + BATCH]} for start in starts])

    def get_next(self):
        return next(self._feeds, None)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
    images[0] = 255  # one of them is extreme
    model = ImageClassifier(PlainCNN(10, 1, widths=(4, 8)), [0.3], [0.4])
    model(torch.from_numpy(images))
    export_onnx(model.eval(), (8, 8, 1), folder / "fp32.onnx")
    return Source(folder / "fp32.onnx", images, folder), images


@pytest.fixture(scope="module")
def activations(source):
    return source[0].activations(64, BATCH)


def of_onnxruntime(source, images, tmp_path, method, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        calibrater = create_calibrator(
            source.prepared,
            augmented_model_path=str(tmp_path / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        calibrater.collect_data(Reader(images))
        return calibrater.compute_data()


@pytest.mark.slow
def test_lowest_and_highest_are_those_that_onnxruntime_finds(source, activations, tmp_path):
    expected = of_onnxruntime(*source, tmp_path, CalibrationMethod.MinMax)
    data = tensors_data(activations.ranges)
    assert len(data.data) > 5
    for name, found in data.items():
        for own, other in zip(found.range_value, expected[name].range_value, strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


def test_percentiles_are_those_that_onnxruntime_finds_to_a_bin(source, activations, tmp_path):
    expected = of_onnxruntime(
        *source,
        tmp_path,
        CalibrationMethod.Percentile,
        percentile=99.0,
        symmetric=False,
        num_bins=2048,
    )
    for name, histogram in activations.histograms.items():
        bins = 2 * max(abs(histogram.lowest), abs(histogram.highest)) / 2048
        found = percentile_range(histogram, 99.0)
        np.testing.assert_allclose(found, expected[name].range_value, atol=2.5 * bins)


def histogram(values, num_bins=513):
    values = values.astype(np.float32)
    limit = float(np.abs(values).max())
    return Histogram(
        lowest=float(values.min()),
        highest=float(values.max()),
        counts=bin_counts(values, limit, num_bins),
    )


def test_bins_are_those_of_numpy(rng):
    values = rng.normal(size=10_000).astype(np.float32)
    found = histogram(values, 101)
    limit = np.abs(values).max()
    expected, edges = np.histogram(values, 101, range=(-limit, limit))
    assert np.abs(found.counts - expected).sum() <= 4  # values on an edge, in float32
    np.testing.assert_allclose(found.edges, edges, atol=1e-6)
    assert histogram(np.zeros(7)).counts[256] == 7


def test_percentiles_by_numpy(rng):
    values = rng.laplace(size=200_000)
    found = percentile_range(histogram(values, 2049), 99.0)
    width = 2 * np.abs(values).max() / 2049
    np.testing.assert_allclose(found, np.percentile(values, [0.5, 99.5]), atol=1.5 * width)


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_entropy_clips_where_onnxruntime_does(rng, name):
    found = histogram(getattr(rng, name)(size=200_000))
    own = entropy_range(found)
    collector = HistogramCollector("entropy", False, 513, 255, 99.9, "same")
    values = (found.counts, found.edges, np.array(found.lowest), np.array(found.highest))
    expected = collector.get_entropy_threshold(values, 255)
    width = found.edges[1] - found.edges[0]
    np.testing.assert_allclose(own, expected, atol=3 * width)


def test_entropy_by_hand(rng):
    """The definition, in loops over plain numbers."""
    found = histogram(np.maximum(rng.standard_t(3, size=3000), 0), 65)
    counts, middle, num_levels = found.counts.tolist(), 32, 15
    divergences = {}
    for half in range(num_levels // 2, middle + 1):
        start, end = middle - half, middle + half + 1
        inside = counts[start:end]
        p = list(inside)
        p[0] += sum(counts[:start])
        p[-1] += sum(counts[end:])
        merged = len(inside) // num_levels
        q = []
        for level in range(num_levels):
            last = level == num_levels - 1
            members = range(level * merged, len(inside) if last else (level + 1) * merged)
            held = [i for i in members if p[i]]
            share = sum(inside[i] for i in members) / max(len(held), 1)
            q += [max(share, 1e-4) if i in held else 0 for i in members]
        pairs = [(a / sum(p), b / sum(q)) for a, b in zip(p, q, strict=True) if a]
        divergences[half] = sum(a * np.log(a / b) for a, b in pairs)
    best = min(divergences, key=divergences.get)
    low, high = found.edges[middle - best], found.edges[middle + best + 1]
    expected = max(low, found.lowest), min(high, found.highest)
    assert entropy_range(found, num_levels) == pytest.approx(expected)


def test_an_outlier_is_clipped_by_percentile_and_entropy(rng):
    found = histogram(np.append(rng.normal(size=100_000), 200.0), 2049)
    for low, high in (percentile_range(found, 99.9), entropy_range(found)):
        assert -50 < low < -2
        assert 2 < high < 50


def test_ranges_of_a_tensor_of_zeros_are_zero():
    zeros = histogram(np.zeros(100))
    assert percentile_range(zeros, 99.9) == (0, 0)
    assert entropy_range(zeros) == (0, 0)


def test_at_most_two_batches_of_activations_are_alive(source):
    activations = Activations(source[0].prepared, source[1], batch_size=4)
    alive, most = [], 0
    batches = activations.batches

    def counted():
        nonlocal most
        for values in batches():
            alive.append(weakref.ref(next(iter(values.values()))))
            most = max(most, sum(reference() is not None for reference in alive))
            yield values

    activations.batches = counted
    assert activations.histograms
    assert len(alive) == 2 * 16  # batches, in two passes
    assert most <= 2


def test_both_passes_run_once(source):
    activations = Activations(source[0].prepared, source[1], batch_size=32)
    batches, passes = activations.batches, []

    def counted():
        passes.append(1)
        return batches()

    activations.batches = counted
    for _ in range(3):
        assert activations.ranges
    assert len(passes) == 1
    for _ in range(3):
        assert activations.histograms
    assert len(passes) == 2
    assert source[0].activations(64, BATCH) is source[0].activations(64, BATCH)


def test_pixels_are_not_calibrated(source):
    graph = source[0].graph
    names = {tensor.name for tensor in float_tensors(graph, outside=preprocessing_nodes(graph))}
    first = next(node for node in graph.node if node.op_type == "Conv")
    before = {
        name for node in graph.node if node.op_type in ("Cast", "Sub") for name in node.output
    }
    assert first.input[0] in names
    assert not names & before
