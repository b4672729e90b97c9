"""Claims about predictions that are found by the paths of images, in place of their numbers."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from distill.errors import UserError
from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.splits import Split
from distill.training.teachers.sources import predictions_teacher

CLASSES = ("cat", "dog")
TRAIN = ["cat/0.png", "cat/2.png", "dog/a/4.png", "dog/5.png"]
NUMBERS = [0, 2, 4, 5]


def split(indices, paths, folder=""):
    size = len(indices)
    return Split(
        inputs=np.zeros((size, 4, 4, 1), np.uint8),
        labels=np.zeros(size, np.int64),
        indices=np.array(indices),
        paths=None if paths is None else pa.array([folder + path for path in paths]),
    )


def data(paths=TRAIN, folder="", **options):
    parts = {
        "train": split(NUMBERS, paths, folder),
        "validation": split([1], paths and ["cat/1.png"], folder),
        "test": split([0, 1], paths and ["cat/0.png", "dog/9.png"], folder and "test/"),
    }
    return ImageData(name="a", task=classification(CLASSES), **parts, **options)


def write(path, names, by="name", index=None):
    """Write logits that tell the place in the file."""
    columns = {by: names, "cat": [0.5 + i for i in range(len(names))], "dog": [-1.0] * len(names)}
    columns |= {} if index is None else {"index": index}
    if path.suffix == ".csv":
        rows = [
            ",".join(columns),
            *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
        ]
        path.write_text("\n".join(rows))
        return str(path)
    logits = np.stack([columns.pop("cat"), columns.pop("dog")], axis=1)
    if path.suffix == ".npz":
        np.savez(path, **columns, logits=logits)
    else:
        pq.write_table(pa.table(columns | {"logits": logits.tolist()}), path)
    return str(path)


def said(teacher, indices=NUMBERS):
    image = torch.zeros(len(indices), 4, 4, 1, dtype=torch.uint8)
    return (teacher(image, torch.tensor(indices)).logits[:, 0] - 0.5).tolist()


@pytest.mark.parametrize("by", ["name", "path"])
@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_answers_are_found_by_the_paths_of_their_images_in_any_order(by, suffix, tmp_path):
    names = ["cat/unknown.png", "dog/5.png", "cat/2.png", "./dog/a/4.png", "cat/0.png"]
    path = write(tmp_path / f"a{suffix}", names, by)
    assert said(predictions_teacher(data(), tmp_path, path=path)) == [4, 2, 3, 1]


@pytest.mark.parametrize("folder", ["", "train/"])
def test_paths_may_be_those_below_the_folder_of_the_training_images(folder, tmp_path):
    path = write(tmp_path / "a.csv", [folder + name for name in TRAIN[::-1]])
    test = write(tmp_path / "b.csv", ["test/dog/9.png", "test/cat/0.png", "train/cat/0.png"])
    teacher = predictions_teacher(data(folder="train/"), tmp_path, path=path, test_path=test)
    assert said(teacher) == [3, 2, 1, 0]
    assert said(teacher.on_test(), [0, 1]) == [1, 0]


def test_names_go_before_numbers_and_it_is_said_where_they_disagree(tmp_path, caplog):
    path = write(tmp_path / "a.csv", TRAIN, index=NUMBERS)
    assert said(predictions_teacher(data(num_skipped=1), tmp_path, path=path)) == [0, 1, 2, 3]
    assert not caplog.records
    path = write(tmp_path / "a.csv", TRAIN, index=[10, 12, 4, 15])
    assert said(predictions_teacher(data(), tmp_path, path=path)) == [0, 1, 2, 3]
    assert "of 4 rows of" in caplog.text
    assert "3 have another `index`" in caplog.text


@pytest.mark.parametrize("paths", [None, TRAIN])
def test_names_that_say_nothing_leave_it_to_the_numbers(paths, tmp_path):
    path = write(tmp_path / "a.csv", ["row 0", "row 1", "row 2", "row 3"], index=[5, 4, 2, 0])
    assert said(predictions_teacher(data(paths), tmp_path, path=path)) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("paths", "message"),
    [(None, "its samples have no paths"), (TRAIN, "theirs are such as cat/0.png")],
)
def test_names_of_other_images_alone_are_refused(paths, message, tmp_path):
    path = write(tmp_path / "a.csv", ["x/1.png", "y/2.png"])
    with pytest.raises(UserError, match=f"found x/1.png, and {message}"):
        predictions_teacher(data(paths), tmp_path, path=path)


def test_images_that_no_row_names_are_named(tmp_path):
    path = write(tmp_path / "a.csv", TRAIN[:2])
    with pytest.raises(UserError, match=r"2 are missing: `dog/a/4.png`, `dog/5.png`\. "):
        predictions_teacher(data(), tmp_path, path=path)


def test_where_images_were_skipped_numbers_are_told_to_count_them(tmp_path, caplog):
    path = write(tmp_path / "a.csv", ["row"] * 4, index=NUMBERS)
    with caplog.at_level(logging.WARNING, "distill"):
        predictions_teacher(data(), tmp_path, path=path)
        assert not caplog.records
        predictions_teacher(data(num_skipped=2), tmp_path, path=path)
    assert "2 corrupt images of the data were skipped" in caplog.text


def test_answers_for_other_images_of_the_same_file_are_another_teachers(tmp_path):
    path = write(tmp_path / "a.csv", TRAIN)
    renamed = [TRAIN[1], TRAIN[0], *TRAIN[2:]]
    first, second = (
        predictions_teacher(data(paths), tmp_path, path=path).fingerprint
        for paths in (TRAIN, renamed)
    )
    assert first != second


def test_a_class_may_be_called_name(tmp_path):
    (tmp_path / "a.csv").write_text("index,name,path\n" + "\n".join(f"{i},{i},-1" for i in NUMBERS))
    teacher = predictions_teacher(
        data(), tmp_path, path=str(tmp_path / "a.csv"), classes=["cat", "dog"]
    )
    assert said(teacher) == [i - 0.5 for i in NUMBERS]
