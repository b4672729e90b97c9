import json

import numpy as np
import pytest
from scipy import ndimage, stats

from distill.files import to_json
from distill.production.reference import (
    NUM_BINS,
    input_statistics,
    output_statistics,
    reference,
    shares,
)
from distill.statistics.scoring import Classes, Labels, Numbers, Truth
from distill.tasks import Task, TaskKind, classification


def described(logits, labels):
    num_classes = logits.shape[1]
    task = classification([str(c) for c in range(num_classes)])
    return output_statistics(
        logits, Truth(labels=labels), task, Classes(num_classes), confidence=0.95
    )


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (50, 9, 7, 3), dtype=np.uint8)


def test_pixels_are_described_per_channel(images):
    channels = input_statistics([images])["channels"]
    for channel, found in enumerate(channels):
        pixels = images[..., channel].astype(float)
        assert found["mean"] == pytest.approx(pixels.mean())
        assert found["std"] == pytest.approx(pixels.std())
        counts, _ = np.histogram(pixels, bins=NUM_BINS, range=(0, 256))
        np.testing.assert_allclose(found["histogram"]["shares"], counts / pixels.size)


def test_looks_are_those_of_pillow_and_scipy(images):
    found = input_statistics([images])
    gray = images @ np.array([0.299, 0.587, 0.114])
    expected = {"brightness": gray.mean(axis=(1, 2)), "contrast": gray.std(axis=(1, 2))}
    laplacian = np.array([ndimage.laplace(g)[1:-1, 1:-1].var() for g in gray])
    expected["sharpness"] = np.log10(1 + laplacian)
    for name, values in expected.items():
        assert found[name]["mean"] == pytest.approx(values.mean())
        assert found[name]["quantiles"]["0.5"] == pytest.approx(np.median(values))
        assert sum(found[name]["histogram"]["shares"]) == pytest.approx(1)


def test_images_may_come_in_pieces(images):
    whole = input_statistics([images])
    parts = input_statistics([images[:7], images[7:]])
    assert whole == parts
    assert whole["count"] == 50


def test_one_gray_pixel_is_described_too():
    found = input_statistics([np.full((2, 1, 1, 1), 200, np.uint8)])
    assert found["brightness"]["mean"] == 200
    assert found["contrast"]["mean"] == found["sharpness"]["mean"] == 0


def test_answers_are_described_by_their_probabilities(rng):
    logits = rng.normal(size=(400, 5)).astype(np.float32) * 3
    labels = rng.integers(0, 5, 400)
    found = described(logits, labels)
    probabilities = np.exp(logits.astype(float))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    entropy = stats.entropy(probabilities, axis=1) / np.log(5)
    ordered = np.sort(probabilities, axis=1)
    for name, values in {
        "confidence": ordered[:, -1],
        "entropy": entropy,
        "margin": ordered[:, -1] - ordered[:, -2],
    }.items():
        assert found[name]["mean"] == pytest.approx(values.mean())
        counts, _ = np.histogram(values, bins=NUM_BINS, range=(0, 1))
        np.testing.assert_allclose(found[name]["histogram"]["shares"], counts / 400)
    right = (logits.argmax(axis=1) == labels).mean()
    low, high = found["accuracy"].interval
    assert low < right < high
    assert found["accuracy"].estimate == right


def test_a_uniform_answer_has_entropy_one_and_a_sure_one_none():
    sure = np.array([[100.0, 0.0, 0.0]])
    labels = np.zeros(1, np.int64)
    found = described(np.zeros((1, 3)), labels)
    assert found["entropy"]["mean"] == pytest.approx(1)
    found = described(sure, labels)
    assert found["entropy"]["mean"] == pytest.approx(0, abs=1e-9)


def test_shares_name_every_class_also_those_that_are_not_there(images):
    labels = np.array([0, 0, 2, 2, 2])
    assert shares(labels, 4) == [0.4, 0, 0.6, 0]
    found = reference(input_statistics([images]), {}, labels, classification("abcd"))
    assert found["label_shares"] == [0.4, 0, 0.6, 0]
    assert found["schema_version"] == 1


PRICES = Task(
    kind=TaskKind.REGRESSION, outputs=("price", "days"), mean=(0.0, 0.0), scale=(1000.0, 2.0)
)
TAGS = Task(kind=TaskKind.MULTI_LABEL, outputs=("red", "green", "blue"))


@pytest.fixture
def prices(rng):
    labels = rng.gamma(2.0, size=(500, 2)).astype(np.float32) * [1000, 2]
    return labels, (labels * rng.uniform(0.8, 1.2, labels.shape)).astype(np.float32)


def test_numbers_are_described_each_in_its_unit_and_scored_together(prices):
    labels, answers = prices
    scoring = Numbers(PRICES, "mae")
    found = output_statistics(answers, Truth(labels=labels), PRICES, scoring, confidence=0.95)
    assert (found["count"], found["metric"]) == (500, "mae")
    expected = np.abs((answers - labels) / [1000, 2]).mean()
    assert found["mae"].estimate == pytest.approx(expected)
    assert list(found["outputs"]) == ["price", "days"]
    for own, described in zip(answers.astype(float).T, found["outputs"].values(), strict=True):
        check_distribution(described, own)


def check_distribution(described, values):
    """Hold mean, spread, quantiles and shares between deciles against NumPy's."""
    assert described["mean"] == pytest.approx(values.mean())
    assert described["std"] == pytest.approx(values.std())
    for level, quantile in described["quantiles"].items():
        assert quantile == pytest.approx(np.quantile(values, float(level)))
    edges = np.quantile(values, np.arange(1, 10) / 10)
    np.testing.assert_allclose(described["edges"], edges)
    np.testing.assert_allclose(described["shares"], np.full(10, 0.1), atol=0.005)
    assert described["gaps"] == 0


def test_labels_that_are_numbers_are_described_as_answers_are(prices):
    labels, _ = prices
    found = reference({}, {}, labels, PRICES)
    assert (found["task"], found["classes"], found["count"]) == (
        "regression", ["price", "days"], 500,
    )  # fmt: skip
    for own, described in zip(labels.astype(float).T, found["labels"].values(), strict=True):
        check_distribution(described, own)
    assert "label_shares" not in found


def test_several_labels_are_described_by_how_often_each_is_given(rng):
    labels = (rng.random((400, 3)) < [0.5, 0.2, 0.0]).astype(np.float32)
    logits = rng.normal(size=(400, 3))
    found = output_statistics(logits, Truth(labels=labels), TAGS, Labels(), confidence=0.95)
    assert found["metric"] == "label_accuracy"
    assert found["label_accuracy"].estimate == pytest.approx(((logits > 0) == labels).mean())
    shares_of = dict(zip(TAGS.outputs, (logits > 0).mean(axis=0), strict=True))
    assert found["given_shares"] == pytest.approx(shares_of)
    whole = reference({}, {"m.onnx": found}, labels, TAGS)
    assert whole["label_shares"] == pytest.approx(labels.mean(axis=0).tolist())
    assert (whole["task"], whole["classes"]) == ("multi_label", ["red", "green", "blue"])


def test_what_is_kept_of_numbers_and_labels_is_json(prices, rng):
    labels, answers = prices
    truth, given = Truth(labels=labels), {"confidence": 0.95}
    numbers = output_statistics(answers, truth, PRICES, Numbers(PRICES, "rmse"), **given)
    tags = (rng.random((50, 3)) < 0.4).astype(np.float32)
    said = output_statistics(2 * tags - 1, Truth(labels=tags), TAGS, Labels(), **given)
    kept = (reference({}, {"m": numbers}, labels, PRICES), reference({}, {"m": said}, tags, TAGS))
    for own in kept:
        assert json.loads(json.dumps(to_json(own))) == to_json(own)
        assert "null" not in json.dumps(to_json(own))
