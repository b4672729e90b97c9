"""Claims about which samples the rows of a file are of, against places that are told by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from distill.errors import UserError
from distill.sample_names import index_in, locate, names_in, places

FILE = Path("a.csv")


def split(*paths, start=0):
    return SimpleNamespace(indices=np.arange(start, start + len(paths)), paths=pa.array(paths))


def test_paths_are_known_as_written_and_below_the_one_folder_that_all_lie_in():
    assert places([split("train/cat/0.png", "./train//dog/1.png")]) == {
        "train/cat/0.png": 0, "cat/0.png": 0, "train/dog/1.png": 1, "dog/1.png": 1,
    }  # fmt: skip
    assert places([split("cat/0.png"), None, split("dog\\0.png", start=5)]) == {
        "cat/0.png": 0, "dog/0.png": 5,
    }  # fmt: skip
    assert places([split("0.png", "1.png")]) == {"0.png": 0, "1.png": 1}
    assert places([SimpleNamespace(indices=np.arange(3), paths=None)]) == {}


def test_paths_that_two_samples_share_tell_none_of_them():
    assert places([split("a.png", "b.png", "./a.png")]) == {}
    assert places([split("a.png"), split("a.png", start=1)]) == {}


@pytest.mark.parametrize(
    ("index", "names", "by", "rows", "numbers"),
    [
        ([4, 5], {}, "index", [0, 1], [4, 5]),
        (None, {"name": ["x", "b", "a"]}, "name", [1, 2], [1, 0]),
        ([0, 1, 2], {"name": ["x", "b", "a"]}, "name", [1, 2], [1, 0]),
        ([4, 5], {"name": ["x", "y"]}, "index", [0, 1], [4, 5]),
        (None, {"name": ["x", "y"], "path": ["b", "x"]}, "path", [0], [1]),
        ([4, 5], {"name": ["a", "y"], "path": ["b", "a"]}, "name", [0], [0]),
    ],
)
def test_the_first_column_of_names_that_names_a_sample_goes_before_numbers(
    index, names, by, rows, numbers
):
    index = None if index is None else np.array(index)
    found = locate(index, names, {"a": 0, "b": 1}, FILE)
    assert (found.by, found.rows.tolist(), found.numbers.tolist()) == (by, rows, numbers)


def test_names_of_nothing_known_without_numbers_are_refused():
    with pytest.raises(UserError, match=r"found x, and theirs are such as a\. Write them so, or"):
        locate(None, {"name": ["x"]}, {"a": 0}, FILE)
    with pytest.raises(UserError, match="found x, and its samples have no paths of their own"):
        locate(None, {"name": ["x"]}, {}, FILE)


def test_columns_of_names_are_of_text_and_numbers_are_whole():
    table = pa.table({"index": [3.0, 4.0], "name": [1, 2], "path": ["a", None]})
    assert index_in(table).tolist() == [3, 4]
    assert names_in(table) == {"path": ["a", "None"]}
    assert index_in(pa.table({"path": ["a"]})) is None
    with pytest.raises(ValueError, match="1 rows have no `index`"):
        index_in(pa.table({"index": [1, None]}))
    with pytest.raises(ValueError, match="truncated"):
        index_in(pa.table({"index": [0.5]}))
