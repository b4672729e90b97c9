"""Claims about baselines: heuristics against scikit-learn, others against what they are given."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import NearestCentroid as SklearnCentroid

from distill.errors import UserError
from distill.statistics.scoring import Classes
from distill.tasks import Task, TaskKind
from distill.training.baselines.features import pixels
from distill.training.baselines.heuristics import (
    ClassPrior,
    LogisticRegressionOnPixels,
    LookupTable,
    MajorityClass,
    NearestCentroid,
    brightness,
    group_shares,
    look_up,
)
from distill.training.baselines.predictions import saved_predictions
from distill.training.baselines.scoring import check_answers, score_baselines
from distill.training.data.sources import image_folder
from distill.verbs.rows.image_files import read_sources

SCORING = Classes(10)


def flat(split):
    return split.inputs.reshape(len(split), -1) / 255


def answers(heuristic, data, train=None):
    output = heuristic.fit(train or data.train, 10).answer(data.test.inputs)
    return output.argmax(axis=1) if output.ndim == 2 else output


def test_majority_and_prior_are_scikit_learns_dummies(data):
    truth = DummyClassifier(strategy="prior").fit(flat(data.train), data.train.labels)
    expected = truth.predict(flat(data.test))
    np.testing.assert_array_equal(answers(MajorityClass(), data), expected)
    shares = np.exp(ClassPrior().fit(data.train, 10).answer(data.test.inputs))
    np.testing.assert_allclose(shares, truth.predict_proba(flat(data.test)), atol=2e-3)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_nearest_centroid_is_scikit_learns(data):
    truth = SklearnCentroid().fit(flat(data.train), data.train.labels)
    found = answers(NearestCentroid(), data)
    np.testing.assert_array_equal(found, truth.predict(flat(data.test)))


def test_logistic_regression_beats_the_centroids_on_digits(data):
    labels = data.test.labels
    linear = (answers(LogisticRegressionOnPixels(), data) == labels).mean()
    assert linear > (answers(NearestCentroid(), data) == labels).mean()


def test_a_class_never_seen_is_never_answered(data):
    train = data.train.take(np.flatnonzero(data.train.labels != 3))
    for heuristic in (LogisticRegressionOnPixels(), NearestCentroid(), LookupTable()):
        found = answers(heuristic, data, train)
        assert 3 not in found
        assert 9 in found


def test_large_images_are_averaged_in_blocks(rng):
    images = rng.integers(0, 256, (4, 70, 64, 3)).astype(np.uint8)
    found = pixels(images).reshape(4, 23, 21, 3)
    assert found[1, 2, 3, 0] == pytest.approx(images[1, 6:9, 9:12, 0].mean() / 255)


def test_a_group_answers_its_own_shares_and_an_unknown_group_those_of_all():
    keys, labels = np.array([[0, 1], [0, 1], [0, 1], [5, 5]]), np.array([0, 0, 1, 1])
    rows, shares = group_shares(keys, labels, 2)
    found = np.exp(look_up(rows, shares, np.array([[0, 1], [5, 5], [9, 9]])))
    # Two of three, and one of one; all samples, smoothed by Laplace, are half and half.
    np.testing.assert_allclose(found, [[2.5 / 4, 1.5 / 4], [0.5 / 2, 1.5 / 2], [0.5, 0.5]])


def test_a_lookup_on_a_key_of_ones_own_is_right_where_the_key_tells_the_class(data):
    whole = {}
    for split in (data.train, data.test):
        seen = [image.tobytes() for image in split.inputs]
        whole |= dict(zip(seen, split.labels, strict=True))
    table = LookupTable(key=lambda images: np.array([[whole[i.tobytes()]] for i in images]))
    np.testing.assert_array_equal(answers(table, data), data.test.labels)


def test_brightness_is_the_mean_of_each_quarter_in_steps():
    images = np.zeros((1, 5, 4, 1), np.uint8)
    images[0, :2, 2:] = 255
    images[0, 2:, :2] = 128
    assert brightness(images).tolist() == [[0, 3, 2, 0]]


def test_scores_have_intervals_and_say_what_they_cost(data):
    scores, predictions = score_baselines(
        data,
        {"prior": ClassPrior(), "linear": LogisticRegressionOnPixels()},
        SCORING,
        confidence=0.9,
    )
    accuracy = scores["prior"]["accuracy"]
    assert accuracy.interval[0] < accuracy.estimate < accuracy.interval[1]
    assert len(predictions["prior"]) == len(data.test)
    assert scores["prior"]["size_bytes"] == 10 * 8
    assert scores["linear"]["size_bytes"] == 4 * (64 + 1) * 10  # float32
    for score in scores.values():
        assert score["fit_seconds"] > 0
        low, high = score["p95_latency_ms"].interval
        assert 0 < low <= score["p95_latency_ms"].estimate <= high


def test_any_callable_is_a_baseline_in_numbers_names_or_logits(data):
    def numbers(train, test, num_classes):
        return test.labels

    def names(train, test, num_classes):
        return [data.classes[label] for label in test.labels]

    def logits(train, test, num_classes):
        return np.eye(num_classes)[test.labels]

    rules = {rule.__name__: rule for rule in (numbers, names, logits)}
    scores, predictions = score_baselines(data, rules, SCORING, confidence=0.95)
    for name in rules:
        np.testing.assert_array_equal(predictions[name], data.test.labels)
        assert scores[name]["accuracy"].estimate == 1
        assert scores[name]["p95_latency_ms"] is None  # one call for all hides it
    assert "nll" in scores["logits"]
    assert "nll" not in scores["numbers"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda test: test.labels[:-1], r"one for each test sample, from the baseline `mine`"),
        (lambda test: test.labels + 5, r"0 to 9.*the baseline `mine`"),
        (lambda test: np.full(len(test), 0.5), r"0 to 9.*such as 0.5"),
        (lambda test: np.full((len(test), 10), np.nan), "719 of 719 samples have NaN"),
        (lambda test: ["seven"] * len(test), "719 of 719 are none, such as `seven`"),
        (lambda test: None, "class numbers or names .719., or logits .719, 10."),
    ],
)
def test_what_are_no_answers_is_refused(data, answer, message):
    def mine(train, test, num_classes):
        return answer(test)

    with pytest.raises(UserError, match=message):
        score_baselines(data, {"mine": mine}, SCORING, confidence=0.95)


def asked_for(kind, *outputs):
    return Task(kind=kind, outputs=outputs, mean=(0.0,) * len(outputs), scale=(1.0,) * len(outputs))


PRICE, PAIR, TAGS = (
    asked_for(TaskKind.REGRESSION, "price"),
    asked_for(TaskKind.REGRESSION, "price", "days"),
    asked_for(TaskKind.MULTI_LABEL, "red", "green"),
)


@pytest.mark.parametrize(
    ("task", "answers", "kept"),
    [
        (PRICE, [1, 2, 3], [[1], [2], [3]]),
        (PRICE, [[1.5], [2.5], [3.5]], [[1.5], [2.5], [3.5]]),
        (PAIR, np.arange(6, dtype=np.float32).reshape(3, 2), [[0, 1], [2, 3], [4, 5]]),
        (TAGS, [[-1.0, 2.0], [0.5, 0.5], [3.0, -3.0]], [[-1, 2], [0.5, 0.5], [3, -3]]),
    ],
)
def test_answers_of_numbers_and_labels_are_kept_one_column_for_each(task, answers, kept):
    np.testing.assert_array_equal(check_answers(answers, 3, task, "mine"), kept)


@pytest.mark.parametrize(
    ("task", "answers", "message"),
    [
        (
            PRICE,
            [1.0, 2.0],
            r"numbers \[3, 1\], one for each test sample, from mine but.* \[2, 1\]",
        ),
        (PAIR, [1.0, 2.0, 3.0], r"numbers \[3, 2\].*float64 \[3\]"),
        (PAIR, np.zeros((3, 3)), r"numbers \[3, 2\].*\[3, 3\]"),
        (PRICE, ["1", "2", "3"], r"numbers \[3, 1\].*<U1"),
        (PRICE, [1.0, np.nan, np.inf], "finite answers from mine but 2 of 3 samples"),
        (TAGS, [0, 1, 1], r"logits \[3, 2\].*\[3\]"),
        (TAGS, [["red"], ["green"], [""]], r"logits \[3, 2\].*<U5"),
        (TAGS, np.eye(3, 2, dtype=bool), r"logits \[3, 2\].*bool"),
        (TAGS, [[0.0, -np.inf]] * 3, "finite answers from mine but 3 of 3 samples"),
    ],
)
def test_what_are_no_numbers_or_no_labels_is_refused(task, answers, message):
    with pytest.raises(UserError, match=message):
        check_answers(answers, 3, task, "mine")


@pytest.fixture
def column(data, tmp_path, rng):
    """Write predictions of all digits, in another order, a tenth of them wrong."""
    index = rng.permutation(1797)
    labels = np.zeros(1797, int)
    for split in (data.train, data.validation, data.test):
        labels[split.indices] = split.labels
    said = np.where(rng.random(1797) < 0.1, 0, labels)[index]
    table = pa.table({"index": index, "old": [data.classes[label] for label in said]})
    pq.write_table(table, tmp_path / "old.parquet")
    lines = [f"{i},{name}" for i, name in zip(index, table["old"].to_pylist(), strict=True)]
    (tmp_path / "old.csv").write_text("\n".join(["index,old", *lines]) + "\n")
    return dict(zip(index.tolist(), said.tolist(), strict=True))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_of_predictions_is_joined_by_index(data, column, tmp_path, suffix):
    rule = functools.partial(saved_predictions, path=str(tmp_path / f"old.{suffix}"), column="old")
    _, predictions = score_baselines(data, {"old": rule}, SCORING, confidence=0.95)
    assert predictions["old"].tolist() == [column[index] for index in data.test.indices.tolist()]


def test_predictions_with_gaps_or_repeats_are_refused(data, tmp_path):
    index = data.test.indices
    for rows, message in ((index[1:], f"1 have none.*index {index[0]}"), (None, "1 have several")):
        rows = np.append(index, index[:1]) if rows is None else rows
        pq.write_table(pa.table({"index": rows, "prediction": rows * 0}), tmp_path / "p.parquet")
        with pytest.raises(UserError, match=message):
            saved_predictions(data.train, data.test, 10, path=str(tmp_path / "p.parquet"))


@pytest.mark.parametrize("folder", ["", "test"])
def test_predictions_of_a_whole_folder_are_those_of_the_test_images_in_it(
    folder, tmp_path, rng, caplog
):
    for part, number in (("train", 30), ("test", 20)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(number):
                pixels_of_one = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
                Image.fromarray(pixels_of_one).save(tmp_path / part / name / f"{i}.png")
    own = image_folder(
        root=str(tmp_path), image_size=[4, 4], test_fraction=0.2, validation_fraction=0.2, seed=0
    )
    _, names = read_sources(tmp_path / folder, "image")
    said = rng.integers(0, 2, len(names))
    order = rng.permutation(len(names))  # what lists them may do so in any order
    columns = {"index": np.arange(len(names)), "name": np.array(names)[order], "label": said}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    found = saved_predictions(
        own.train, own.test, 2, path=str(tmp_path / "p.parquet"), column="label"
    )
    by_file = {
        tmp_path / folder / name: str(n)
        for name, n in zip(columns["name"].tolist(), said.tolist(), strict=True)
    }
    expected = [by_file[tmp_path / path] for path in own.test.paths.to_pylist()]
    assert found.tolist() == expected
    assert f"of 40 rows of {tmp_path / 'p.parquet'} that name a sample" in caplog.text
