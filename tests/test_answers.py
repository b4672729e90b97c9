"""Claims about files of answers: what a CSV has for people, and what is refused."""

import csv
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from deployable import CLASSES, exported
from PIL import Image

from distill.contract import CLASSES_KEY
from distill.errors import UserError
from distill.tasks import TaskKind
from distill.verbs.rows.answers import write_answers
from distill.verbs.rows.image_files import read_sources

ANSWERS = np.array([[0.0, np.log(3)], [-1.0, -2.0]], np.float32)


def written(tmp_path, kind, name="said.csv", **beside):
    contract: Any = SimpleNamespace(asks=SimpleNamespace(kind=kind), classes=("cat", "dog, big"))
    asked = {"index": np.arange(2), "name": ["a.png", "b, c.png"], **beside}
    write_answers(tmp_path / name, contract, ANSWERS, asked, {"classes": "cat"})
    return tmp_path / name


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_of_classes_has_a_probability_for_each(tmp_path):
    first, second = rows(written(tmp_path, TaskKind.CLASSIFICATION))
    assert (first["name"], first["label"], second["label"]) == ("a.png", "dog, big", "cat")
    assert second["name"] == "b, c.png"
    assert float(first["confidence"]) == float(first["probability dog, big"]) == pytest.approx(0.75)
    assert float(first["probability cat"]) == pytest.approx(0.25)


def test_columns_beside_the_answers_are_neither_lost_nor_half_written(tmp_path):
    beside = {"customer": ["x7", "x8"]}
    first, _ = rows(written(tmp_path, TaskKind.CLASSIFICATION, **beside))
    assert first["customer"] == "x7"
    with pytest.raises(UserError, match="other names than the answers' but got `label`"):
        written(tmp_path, TaskKind.CLASSIFICATION, "twice.csv", label=["a", "b"])
    with pytest.raises(UserError, match=r"`tags` holds lists\. Let `output`"):
        written(tmp_path, TaskKind.CLASSIFICATION, "nested.csv", tags=[["a"], ["b"]])
    assert [path.name for path in tmp_path.iterdir()] == ["said.csv"]


def test_a_csv_of_labels_has_one_for_each_that_may_hold(tmp_path):
    first, second = rows(written(tmp_path, TaskKind.MULTI_LABEL))
    assert (first["labels"], second["labels"]) == ("dog, big", "")
    assert float(first["probability cat"]) == 0.5
    assert float(second["probability cat"]) == pytest.approx(1 / (1 + np.e))


def test_a_csv_of_numbers_has_them_and_parquet_keeps_the_logits(tmp_path):
    assert {*rows(written(tmp_path, TaskKind.REGRESSION))[0]} == {
        "index", "name", "predicted cat", "predicted dog, big",
    }  # fmt: skip
    table = pq.read_table(written(tmp_path, TaskKind.CLASSIFICATION, "said.parquet"))
    np.testing.assert_array_equal(table["logits"].to_pylist(), ANSWERS)


def test_another_kind_of_file_is_refused_before_anything_is_read(cli):
    ran = cli("predict", "artefact=nope.onnx", "input=.", "output=said.xlsx")
    assert (ran.code, "`output` to end in .parquet or .csv" in ran.stderr) == (2, True)


def test_an_input_that_is_missing_is_said_to_be(tmp_path):
    with pytest.raises(UserError, match="photos, which is not there"):
        read_sources(tmp_path / "photos", "image")
    (tmp_path / "photos.txt").touch()
    with pytest.raises(UserError, match=r"photos\.txt\. Mend"):
        read_sources(tmp_path / "photos.txt", "image")


def reference(folder, name, **metadata):
    """A file beside a contract, as the teacher's is: with its classes, without the hash."""
    proto = onnx.load(exported(folder))
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(proto, folder / name)
    return folder / name


def test_the_teachers_file_is_read_by_the_contract_beside_it(tmp_path, cli):
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    path = reference(tmp_path / "export", "teacher.onnx", **{CLASSES_KEY: CLASSES})
    ran = cli("predict", f"artefact={path}", "input=.", "output=said.csv")
    assert ran.code == 0, ran.stderr
    assert [row["name"] for row in rows(tmp_path / "said.csv")] == ["a.png"]


@pytest.mark.parametrize("classes", [CLASSES[::-1], None])
def test_a_file_of_other_classes_is_not(tmp_path, cli, classes):
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    said = {} if classes is None else {CLASSES_KEY: classes}
    path = reference(tmp_path / "export", "teacher.onnx", **said)
    ran = cli("predict", f"artefact={path}", "input=.")
    assert (ran.code, "hash" in ran.stderr) == (1, True)
