import numpy as np
import pytest
from scipy import ndimage, stats

from distill.production.reference import (
    NUM_BINS,
    input_statistics,
    output_statistics,
    reference,
    shares,
)
from distill.scoring import Classes, Truth
from distill.tasks import classification


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
