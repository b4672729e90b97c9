"""Claims about predictions in a file as teacher, held against the arrays that were written."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import softmax

from distill.errors import UserError
from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.splits import Split
from distill.training.teachers.predictions import PredictionsTeacher
from distill.training.teachers.sources import predictions_teacher

CLASSES = ("cat", "dog", "owl")
INDEX = np.array([7, 3, 21, 4, 0, 9, 12, 5])


@pytest.fixture
def logits(rng):
    return rng.normal(0, 4, (8, 3)).astype(np.float32)


def write_parquet(path, index, values, name="logits", kind=None, classes=CLASSES):
    kind = pa.list_(pa.float32(), values.shape[1]) if kind is None else kind
    table = pa.table({"index": index, "label": ["cat"] * len(index), name: pa.array(
        [[None if np.isnan(v) else v for v in row] for row in values.tolist()], kind
    )})  # fmt: skip
    named = {} if classes is None else {"classes": "\n".join(classes)}
    pq.write_table(table.replace_schema_metadata(named), path)
    return path


def write_npz(path, index, values, name="logits", classes=CLASSES):
    named = {} if classes is None else {"classes": np.array(classes)}
    np.savez(path, index=index, **{name: values}, **named)
    return path


def write_csv(path, index, values, name="logits", classes=CLASSES):
    """Write the index as second column: its place does not matter."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([classes[0], "index", *classes[1:]])
        for number, row in zip(index.tolist(), values.tolist(), strict=True):
            first, *others = ["" if np.isnan(value) else value for value in row]
            rows.writerow([first, number, *others])
    return path


WRITERS = {".parquet": write_parquet, ".npz": write_npz, ".csv": write_csv}


def answers(teacher, index):
    """Ask about samples; the images, which it must not look at, are all the same."""
    image = torch.zeros(len(index), 8, 8, 1, dtype=torch.uint8)
    return teacher(image, torch.as_tensor(index)).logits.numpy()


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_was_written_of_a_sample_comes_back(suffix, logits, tmp_path):
    teacher = PredictionsTeacher(WRITERS[suffix](tmp_path / f"a{suffix}", INDEX, logits))
    assert teacher.classes == CLASSES
    assert not teacher.sees_images
    assert not teacher.train().training
    written = dict(zip(INDEX.tolist(), logits, strict=True))
    for asked in ([21, 0, 9], [5], INDEX.tolist(), [4, 4]):
        found = answers(teacher, asked)
        np.testing.assert_array_equal(found, [written[i] for i in asked])
        assert found.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", WRITERS)
def test_probabilities_come_back_as_logits_of_the_same(suffix, dtype, logits, tmp_path):
    probabilities = softmax(logits, axis=1).astype(dtype)
    probabilities[2] = [0, 1, 0]
    path = WRITERS[suffix](tmp_path / f"a{suffix}", INDEX, probabilities, "probabilities")
    found = answers(PredictionsTeacher(path, outputs_probabilities=suffix == ".csv"), INDEX)
    assert np.isfinite(found).all()
    tolerance = 2e-3 if dtype is np.float16 else 1e-6
    np.testing.assert_allclose(softmax(found, axis=1), probabilities, atol=tolerance)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)]
)
def test_any_kind_of_list_in_a_parquet_file_is_read(kind, logits, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", INDEX, logits, kind=kind)
    np.testing.assert_array_equal(answers(PredictionsTeacher(path), INDEX), logits)


def test_classes_that_are_given_go_before_those_of_the_file(logits, tmp_path):
    path = write_npz(tmp_path / "a.npz", INDEX, logits)
    assert PredictionsTeacher(path, ["x", "y", "z"]).classes == ("x", "y", "z")
    with pytest.raises(UserError, match="answer for 2 classes but it answers for 3"):
        PredictionsTeacher(path, ["x", "y"])
    unnamed = PredictionsTeacher(write_npz(path, INDEX, logits, classes=None))
    assert unnamed.classes is None
    unnamed.classes = ("a", "b")  # as `match_classes` does
    with pytest.raises(UserError, match="answer for 2 classes but it answers for 3"):
        answers(unnamed, [7])


def test_missing_samples_are_counted_and_named(logits, tmp_path):
    teacher = PredictionsTeacher(write_npz(tmp_path / "a.npz", INDEX, logits))
    teacher.check_covers(INDEX[::-1])
    with pytest.raises(UserError, match=r"all 4 samples .* but 2 are missing: index 8, 22\. "):
        teacher.check_covers(np.array([7, 8, 22, 3]))
    many = np.arange(100, 109)
    with pytest.raises(UserError, match=r"9 are missing: index 100, 101, 102, 103, 104, \.\.\."):
        teacher.check_covers(many)
    with pytest.raises(UserError, match="1 are missing: index -1"):
        answers(teacher, [-1])


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_sample_that_is_there_twice_is_refused(suffix, logits, tmp_path):
    index = np.array([7, 3, 21, 4, 3, 9, 3, 5])
    path = WRITERS[suffix](tmp_path / f"a{suffix}", index, logits)
    with pytest.raises(UserError, match="2 rows repeat an index, such as 3"):
        PredictionsTeacher(path)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_numbers_that_no_logit_can_be_are_refused(suffix, value, logits, tmp_path):
    values = logits.astype(np.float64)
    values[[1, 4], [0, 2]] = value
    with np.errstate(over="ignore"):  # of the writer, for 1e39 in float32
        path = WRITERS[suffix](tmp_path / f"a{suffix}", INDEX, values)
    with pytest.raises(UserError, match=r"2 of 8 samples have NaN, .* such as index [30]\b"):
        PredictionsTeacher(path)


@pytest.mark.parametrize("row", [[0.5, 0.3, 0.1], [1.2, -0.2, 0.0], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_that_are_no_distribution_are_refused(suffix, row, tmp_path):
    values = np.full((8, 3), 1 / 3, np.float32)
    values[6] = row
    path = WRITERS[suffix](tmp_path / f"a{suffix}", INDEX, values, "probabilities")
    with pytest.raises(UserError, match=r"sum to 1 .* index 12 "):
        PredictionsTeacher(path, outputs_probabilities=suffix == ".csv")


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(suffix, share, logits, tmp_path):
    path = WRITERS[suffix](tmp_path / f"a{suffix}", INDEX, logits)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"in {path} but it is damaged"):
        PredictionsTeacher(path)


def columns(**arrays):
    return lambda path: pq.write_table(pa.table(arrays), path)


def archive(**arrays):
    return lambda path: np.savez(path, **arrays)


def text(content):
    return lambda path: path.write_text(content)


ONE = np.ones((2, 2), np.float32)
TWO = [0, 1]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npz", archive(index=TWO, logits=np.array([[1, None], [2, 3]], object)), "allow_pickle"),
        ("a.npz", archive(index=np.array([0, None], object), logits=ONE), "allow_pickle"),
        ("a.npz", archive(index=TWO, logits=[["a", "b"], ["c", "d"]]), "Expected whole numbers"),
        ("a.npz", archive(index=TWO, logits=ONE * 1j), "Expected whole numbers"),
        ("a.npz", archive(index=[0.0, 1.0], logits=ONE), "Expected whole numbers"),
        ("a.npz", archive(index=[0, 1, 2], logits=ONE), r"int64 \(3,\) and float32 \(2, 2\)"),
        ("a.npz", archive(index=TWO, logits=ONE[0]), "Expected whole numbers"),
        ("a.npz", archive(index=[], logits=ONE[:0]), "Expected whole numbers"),
        ("a.npz", archive(index=TWO), "either `logits` or `probabilities` .* found index"),
        ("a.npz", archive(logits=ONE), "found logits"),
        ("a.npz", archive(index=TWO, logits=ONE, probabilities=ONE), "either `logits` or"),
        ("a.npz", lambda path: pq.write_table(pa.table({"a": TWO}), path), "no archive of arrays"),
        ("a.parquet", columns(index=TWO, logits=[[1.0, 2.0], [3.0]]), "different lengths"),
        ("a.parquet", columns(index=TWO, logits=[[1.0, 2.0], None]), "different lengths, or none"),
        ("a.parquet", columns(index=TWO, logits=[1.0, 2.0]), "double, not lists of numbers"),
        ("a.parquet", columns(index=TWO, logits=[["a"], ["b"]]), "damaged or something else"),
        ("a.parquet", columns(index=[0, None], logits=[[1.0], [2.0]]), "1 rows have no `index`"),
        ("a.parquet", columns(index=[0.5, 1.0], logits=[[1.0], [2.0]]), "damaged or something"),
        ("a.parquet", columns(index=TWO, label=["a", "b"]), "found index, label"),
        ("a.csv", text("a,b\n1,2\n"), "one column `index` .* found a, b"),
        ("a.csv", text("index\n1\n"), "one for every class"),
        ("a.csv", text("index,a\n1,2\n2"), "Expected 2 columns, got 1"),
        ("a.csv", text("index,a\n1,x\n"), "damaged or something else"),
        ("a.csv", text("index,a\n1.5,2\n"), "damaged or something else"),
        ("a.csv", text("index,a,b\n"), "Expected whole numbers"),
        ("a.csv", text(""), "Empty CSV file"),
        ("a.json", text("{}"), "there is none at"),
        ("none.csv", lambda path: None, "there is none at"),
    ],
)  # fmt: skip
def test_another_form_is_refused(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        PredictionsTeacher(tmp_path / name)


def test_a_file_of_logits_is_not_read_as_probabilities(logits, tmp_path):
    path = write_npz(tmp_path / "a.npz", INDEX, logits)
    with pytest.raises(UserError, match="but it has `logits`"):
        PredictionsTeacher(path, outputs_probabilities=True)


def test_a_fingerprint_changes_with_the_file_and_how_it_is_read(tmp_path):
    halves = np.full((8, 3), 1 / 3)
    first = write_csv(tmp_path / "a.csv", INDEX, halves)
    other = write_csv(tmp_path / "b.csv", INDEX[::-1], halves)
    prints = [
        PredictionsTeacher(first, outputs_probabilities=False).fingerprint,
        PredictionsTeacher(other, outputs_probabilities=False).fingerprint,
        PredictionsTeacher(first, outputs_probabilities=True).fingerprint,
    ]
    assert len(set(prints)) == 3
    both = PredictionsTeacher(first, test_path=other, outputs_probabilities=False)
    assert both.fingerprint == prints[0]
    with_logits = write_csv(tmp_path / "c.csv", INDEX, halves - 1)
    prints = {
        PredictionsTeacher(with_logits, outputs_probabilities=said).fingerprint
        for said in (None, False)
    }
    assert len(prints) == 1  # what nobody said is no other reading


@pytest.mark.parametrize("digits", [2, 8])
@pytest.mark.parametrize("sharpness", [1, 1e4])  # of 1e4, one-hot rows
def test_probabilities_of_which_nobody_says_that_they_are_are_refused(
    digits, sharpness, logits, tmp_path
):
    values = softmax(sharpness * logits, axis=1).round(digits)
    path = write_csv(tmp_path / "a.csv", INDEX, values)
    with pytest.raises(UserError, match="look like probabilities: all 8 rows"):
        PredictionsTeacher(path)
    np.testing.assert_allclose(
        answers(PredictionsTeacher(path, outputs_probabilities=False), INDEX), values, atol=1e-6
    )
    likely = answers(PredictionsTeacher(path, outputs_probabilities=True), INDEX)
    np.testing.assert_array_equal(likely.argmax(axis=1), values.argmax(axis=1))


def test_the_test_set_has_a_file_of_its_own_or_no_answers(logits, tmp_path):
    path = write_npz(tmp_path / "a.npz", INDEX, logits)
    assert PredictionsTeacher(path).on_test() is None
    test = write_csv(tmp_path / "test.csv", np.array([0, 1]), -logits[:2])
    found = answers(PredictionsTeacher(path, test_path=test).on_test(), [1, 0])
    np.testing.assert_array_equal(found, -logits[[1, 0]])
    others = [
        write_npz(tmp_path / "order.npz", INDEX, logits, classes=CLASSES[::-1]),
        write_npz(tmp_path / "unnamed.npz", INDEX, logits, classes=None),
    ]
    for other in others:
        with pytest.raises(UserError, match="the same classes in the same order"):
            PredictionsTeacher(path, test_path=other)
    narrow = write_npz(tmp_path / "narrow.npz", INDEX, logits[:, :2], classes=None)
    with pytest.raises(UserError, match="the same classes in the same order"):
        PredictionsTeacher(others[1], test_path=narrow)


def test_every_training_sample_must_be_there_and_classes_are_mapped(logits, tmp_path):
    def split(indices):
        size = len(indices)
        return Split(
            inputs=np.zeros((size, 8, 8, 1), np.uint8),
            labels=np.zeros(size, np.int64),
            indices=np.array(indices),
        )

    def data(*indices, test=98):
        return ImageData(
            name="a",
            task=classification(("owl", "cat")),
            train=split(indices),
            validation=split([99]),
            test=split([test]),
        )

    path = str(write_npz(tmp_path / "a.npz", INDEX, logits))
    teacher = predictions_teacher(data(9, 7), tmp_path, path=path, drop_classes=True)
    np.testing.assert_array_equal(answers(teacher, [9, 7]), logits[[5, 0]][:, [2, 0]])
    assert not teacher.sees_images
    assert teacher.on_test() is None  # sample 98 is not there
    known = predictions_teacher(data(9, 7, test=5), tmp_path, path=path, drop_classes=True)
    np.testing.assert_array_equal(answers(known.on_test(), [5]), logits[[7]][:, [2, 0]])
    numbered_anew = data(9, 7, test=9)  # a test set of its own: its 9 is another sample
    other = predictions_teacher(numbered_anew, tmp_path, path=path, drop_classes=True)
    assert other.on_test() is None
    with pytest.raises(UserError, match="it knows 1 more: `dog`"):
        predictions_teacher(data(9, 7), tmp_path, path=path)
    with pytest.raises(UserError, match=r"all 3 samples .* but 1 are missing: index 8"):
        predictions_teacher(data(9, 8, 7), tmp_path, path=path, drop_classes=True)
