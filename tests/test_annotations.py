"""Claims about files of annotations: what each layout means, and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import UserError
from distill.people.annotations import read_annotations
from distill.tasks import as_names, class_numbers

CLASSES = ("cat", "dog", "owl")
SAMPLES = SimpleNamespace(
    indices=np.array([10, 20, 30, 40]), paths=pa.array(["a.png", "b.png", "c.png", "d.png"])
)


def read(*paths, samples=SAMPLES, classes=CLASSES):
    return read_annotations(paths, samples, classes)


def text(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def table(file, **columns):
    pq.write_table(pa.table(columns), file)
    return file


def task(index, *annotations):
    return {"id": 1, "data": {"index": index, "image": "x"}, "annotations": list(annotations)}


def said(choice, who=7, *, cancelled=False):
    value = {"choices": [choice] if isinstance(choice, str) else choice}
    return {
        "result": [{"from_name": "label", "to_name": "image", "type": "choices", "value": value}],
        "was_cancelled": cancelled,
        "completed_by": who,
        "lead_time": 2.5,
    }


def export(path, *tasks):
    path.write_text(json.dumps(tasks))
    return path


def test_one_row_an_answer_by_index(tmp_path):
    path = text(tmp_path / "a.csv", "index,annotator,label,seconds", '20,"ann","dog",1.5',
                '10,"bob","cat",2', '20,"bob","owl",4')  # fmt: skip
    found = read(path)
    assert found.samples.tolist() == [1, 0, 1]
    assert found.labels.tolist() == [1, 0, 2]
    assert found.annotators.tolist() == ["ann", "bob", "bob"]
    assert found.seconds.tolist() == [1.5, 2, 4]
    assert found.table(4, 3).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("column", ["path", "name"])
def test_counts_by_path(tmp_path, column):
    keys = {column: ["c.png", "a.png"]}
    path = table(tmp_path / "a.parquet", label=[9, 9], counts=[[0, 3, 2], [51, 0, 0]], **keys)
    found = read(path)
    assert found.table(4, 3).tolist() == [[51, 0, 0], [0, 0, 0], [0, 3, 2], [0, 0, 0]]
    assert found.annotators is None
    written = text(
        tmp_path / "a.csv", f"{column},counts", 'c.png,"[0, 3, 2]"', 'a.png,"[51, 0, 0]"'
    )
    assert read(written).table(4, 3).tolist() == found.table(4, 3).tolist()


def test_label_studio_leaves_out_what_is_cancelled_or_empty(tmp_path):
    path = export(
        tmp_path / "a.json",
        task(10, said("cat"), said("dog", who={"id": 9, "email": "x"})),
        task(30, said("owl", cancelled=True), said([])),
        task(40, said("owl", who=None)),
        task(20),
    )
    found = read(path)
    assert found.samples.tolist() == [0, 0, 3]
    assert found.labels.tolist() == [0, 1, 2]
    assert found.annotators.tolist() == ["7", "x", "label studio"]
    assert found.seconds.tolist() == [2.5, 2.5, 2.5]
    assert found.num_left_out == 2


def test_answers_of_nobody_are_refused_and_times_that_are_not_all_known_are_not_known(tmp_path):
    path = table(tmp_path / "a.parquet", index=[10, 20], annotator=["ann", None],
                 label=["cat", "dog"], seconds=[1.0, 2.0])  # fmt: skip
    with pytest.raises(UserError, match=r"full column `annotator`.*with 1 empty"):
        read(path)
    path = table(tmp_path / "b.parquet", index=[10, 20], annotator=["ann", "bob"],
                 label=["cat", "dog"], seconds=[1.0, None])  # fmt: skip
    assert read(path).seconds is None
    path = table(tmp_path / "c.parquet", index=[10, 20], label=["cat", None])
    with pytest.raises(UserError, match=r"full column `label`.*with 1 empty"):
        read(path)


def test_several_files_are_put_together(tmp_path):
    first = text(tmp_path / "a.csv", "index,annotator,label", "10,ann,cat")
    second = export(tmp_path / "b.json", task(10, said("owl")))
    found = read(first, second)
    assert found.table(4, 3)[0].tolist() == [1, 0, 1]
    assert found.annotators.tolist() == ["ann", "7"]
    assert found.seconds is None  # not known of all


def test_names_that_look_like_numbers_are_names(tmp_path):
    path = text(tmp_path / "a.csv", "index,annotator,label", "10,a,3", "20,a,1", "30,a,2")
    assert read(path, classes=("1", "2", "3")).labels.tolist() == [2, 0, 1]
    path = text(tmp_path / "a.csv", "index,annotator,label", "10,a,2", "20,a,0")
    assert read(path).labels.tolist() == [2, 0]  # no such names: class numbers
    path = table(tmp_path / "a.parquet", index=[10, 20, 30], label=[3, 1, 2])
    assert read(path, classes=("1", "2", "3")).labels.tolist() == [2, 0, 1]  # as a CSV is read
    assert as_names(np.array([0.5])).tolist() == [0.5]
    assert class_numbers([1, 2], ("1", "2", "3"), "x").tolist() == [1, 2]  # a rule's are numbers


@pytest.mark.parametrize(
    "values", [["True", "False"], ["true", "false"], [True, False], np.array([True, False], object)]
)
def test_true_and_false_are_classes_however_they_are_written(values):
    assert class_numbers(values, ("false", "true"), "x").tolist() == [1, 0]
    if isinstance(values[0], str) and values[0] == "True":
        with pytest.raises(UserError, match="`True`"):
            class_numbers(values, ("False", "true", "maybe"), "x")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["index,label", "10,cat", "11,dog", "99,dog"],
         r"2 of 3 rows.*does not have: 11, 99\. It has 10, 20, 30, 40"),
        (["path,label", "z.png,cat"], r"found z\.png, and theirs are such as a\.png"),
        (["index,label", "10,cat", "20,dig"], "1 of 2 are none, such as `dig`.*Did you mean `dog`"),
        (["index,label", "10,0", "20,3"], r"numbers \(0 to 2\).*1 of 2 are none, such as 3"),
        (["index,annotator,label", "10,ann,cat", "10,ann,dog"], "`ann` answers index 10 twice"),
        (["sample,label", "10,cat"], "`index`, `path` or `name`.*found 1 with sample, label"),
        (["index,said", "10,cat"], "full column `label`.*found index, said"),
        (["index,label"], "found 0 with index, label"),
        (["index,label", "10"], "damaged or something else"),
        (["index,counts", '10,"[1, 2]"'], "to have 3 numbers from 0 on.*found 2"),
        (["index,counts", '10,"[1, -2, 0]"'], "the smallest -2"),
        (["index,counts", '10,"[1,"'], "damaged or something else"),
        (["index,counts", '10,"[0.5, 0.5, 0]"'], "no lists of whole numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused_and_named(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read(text(tmp_path / "a.csv", *lines))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"data": {"image": "x"}}], "`index` or `path` in their `data`.*found image in task 0"),
        ([], "none of its 0 tasks has any"),
        ([task(10, said(["cat", "dog"]))], "one choice.*index 10 has 2: cat, dog"),
        ([task(10), task(20, said("cat", cancelled=True))], "none of its 2 tasks has any"),
        ([task(10, said("cat")), {"annotations": [said("dog")]}], "found none in task 1"),
        ([task(10, said("cat")), 1], "found none in task 1"),
        ([task(77, said("cat"))], "does not have: 77"),
    ],
)
def test_an_export_that_answers_nothing_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(export(tmp_path / "a.json", *content))


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.parquet, \.csv, \.json"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match=r"\.parquet, \.csv, \.json"):
        read(text(tmp_path / "a.xlsx", "index,label"))
    with pytest.raises(UserError, match="damaged"):
        read(text(tmp_path / "a.parquet", "no"))
    with pytest.raises(UserError, match="truncated"):
        read(text(tmp_path / "a.json", "{"))


def test_data_without_paths_or_with_the_same_twice_cannot_be_joined_by_path(tmp_path):
    path = text(tmp_path / "a.csv", "path,label", "a.png,cat")
    both = text(tmp_path / "b.csv", "index,path,label", "2,a.png,cat")
    for paths in (None, pa.array(["a.png", "a.png"])):
        samples = SimpleNamespace(indices=np.array([1, 2]), paths=paths)
        with pytest.raises(UserError, match=r"have no paths of their own.*add a column `index`"):
            read(path, samples=samples)
        assert read(both, samples=samples).samples.tolist() == [1]


BELOW = SimpleNamespace(
    indices=np.array([0, 1]), paths=pa.array(["test/cat/0.png", "test/dog/0.png"])
)


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
@pytest.mark.parametrize("folder", ["test/", "", "./test/", "test\\"])
def test_paths_go_before_numbers_of_another_listing(kind, folder, tmp_path, caplog):
    names, index = [f"{folder}dog/0.png", f"{folder}cat/0.png"], [1, 0]
    if kind == "json":
        tasks = [task(number, said(label)) for number, label in zip(index, CLASSES, strict=False)]
        for own, name in zip(tasks, names, strict=True):
            own["data"]["path"] = name
        path = export(tmp_path / "a.json", *tasks)
    elif kind == "csv":
        rows = [f"{n},{i},{c}" for n, i, c in zip(names, index, CLASSES, strict=False)]
        path = text(tmp_path / "a.csv", "name,index,label", *rows)
    else:
        path = table(tmp_path / "a.parquet", name=names, index=index, label=list(CLASSES[:2]))
    assert read(path, samples=BELOW).samples.tolist() == [1, 0]
    assert not caplog.records  # the numbers say the same
    shifted = SimpleNamespace(indices=np.array([7, 8]), paths=BELOW.paths)
    assert read(path, samples=shifted).samples.tolist() == [1, 0]
    assert "of 2 rows" in caplog.text
    assert "2 have another `index`" in caplog.text


def test_names_that_are_no_paths_leave_it_to_paths_or_numbers(tmp_path):
    path = text(tmp_path / "a.csv", "name,path,label", "Rex,b.png,dog", "Tom,a.png,cat")
    assert read(path).samples.tolist() == [1, 0]
    path = text(tmp_path / "a.csv", "name,index,label", "Rex,20,dog", "Tom,10,cat")
    assert read(path).samples.tolist() == [1, 0]


def test_one_path_of_another_sample_is_refused_whatever_its_number_is(tmp_path):
    path = text(tmp_path / "a.csv", "path,index,label", "b.png,20,dog", "z.png,10,cat")
    with pytest.raises(UserError, match=r"path values.*1 of 2 rows.*does not have: z\.png"):
        read(path)
