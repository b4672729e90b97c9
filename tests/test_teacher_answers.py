"""A teacher's answers are joined by prediction, kept whole, and never mixed with another's."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from registry_runs import rewrite_json
from served import write_onnx

from distill.contract import CLASSES_KEY
from distill.errors import UserError
from distill.files import sha256
from distill.production.teacher_answers import TeacherAnswers, answers_of, read_answers
from distill.runtime import ModelError, OnnxModel


def answers(ids, logits=None, **facts):
    logits = np.arange(3 * len(ids)).reshape(-1, 3) if logits is None else logits
    usual = {"model_sha256": "a" * 64, "classes": ("x", "y", "z")}
    return TeacherAnswers(
        ids=np.array(ids, np.str_), logits=np.asarray(logits, np.float32), **usual | facts
    )


@pytest.fixture
def linear(tmp_path):
    """A teacher [N, 4] to two logits by a matrix product."""
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = write_onnx(
        tmp_path / "teacher.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("logits", TensorProto.FLOAT, ["batch", 2])],
        constants={"w": weights},
        metadata={CLASSES_KEY: json.dumps(["no", "yes"])},
    )
    return path, weights


def test_answers_are_those_of_the_file_with_its_hash_and_its_classes(linear, rng):
    path, weights = linear
    inputs = rng.normal(size=(300, 4)).astype(np.float32)  # more than a batch
    found = answers_of(path, inputs, [f"p{i}" for i in range(300)])
    np.testing.assert_allclose(found.logits, inputs @ weights, rtol=1e-5)
    assert (found.model_sha256, found.classes) == (sha256(path), ("no", "yes"))
    assert found.ids[299] == "p299"


def test_a_teacher_with_a_contract_has_its_classes(pets):
    path = pets / "model.onnx"
    inputs = np.zeros((2, 2, 2, 1), np.uint8)
    found = answers_of(path, inputs, ["a", "b"])
    assert found.classes == tuple(json.loads((pets / "contract.json").read_text())["classes"])
    np.testing.assert_array_equal(found.logits, OnnxModel(path).predict(inputs))


def test_a_teacher_beside_the_contract_of_another_is_refused(pets, tmp_path):
    folder = shutil.copytree(pets, tmp_path / "export")
    rewrite_json(folder / "contract.json", classes=["cat", "dog", "emu"])
    with pytest.raises(UserError, match="carry the hash of the contract beside it"):
        answers_of(folder / "model.onnx", np.zeros((2, 2, 2, 1), np.uint8), ["a", "b"])


def test_what_is_written_is_read_again(tmp_path):
    before = answers(["b", "a", "ü"])
    before.write(tmp_path / "answers.npz")
    after = read_answers(tmp_path / "answers.npz")
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_array_equal(after.logits, before.logits)
    assert after.logits.dtype == np.float32
    assert (after.model_sha256, after.classes) == (before.model_sha256, before.classes)


def test_without_classes_it_is_read_again_too(tmp_path):
    answers([], np.zeros((0, 3)), classes=()).write(tmp_path / "answers.npz")
    after = read_answers(tmp_path / "answers.npz")
    assert (len(after.ids), after.num_classes, after.classes) == (0, 3, ())


@given(
    st.lists(st.text("abc", min_size=1, max_size=2), unique=True, max_size=6),
    st.lists(st.text("abcd", min_size=1, max_size=2), max_size=8),
)
def test_logits_are_found_by_id_or_are_unknown(known, asked):
    stored = answers(known, np.arange(3 * len(known)).reshape(-1, 3))
    found = stored.logits_of(asked)
    assert found.shape == (len(asked), 3)
    for one, row in zip(asked, found, strict=True):
        expected = stored.logits[known.index(one)] if one in known else [np.nan] * 3
        np.testing.assert_array_equal(row, expected)


def test_joining_adds_what_is_new_and_keeps_what_was_said():
    first, then = answers(["a", "b"]), answers(["b", "c"], [[9, 9, 9], [7, 7, 7]])
    joined = first.joined(then)
    assert joined.ids.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(joined.logits, [[0, 1, 2], [3, 4, 5], [7, 7, 7]])


@pytest.mark.parametrize("facts", [{"model_sha256": "b" * 64}, {"classes": ("x", "z", "y")}])
def test_answers_of_two_teachers_are_not_mixed(facts):
    with pytest.raises(UserError, match="Expected"):
        answers(["a"]).joined(answers(["b"], **facts))


@pytest.mark.parametrize(
    ("ids", "logits", "says"),
    [
        (["a", "a"], None, "several"),
        (["a"], np.zeros((2, 3)), r"\[1\] and \[2, 3\]"),
        (["a", "b"], np.array([[0, 0, 0], [0, np.nan, 0]]), "1 of 2 answers"),
    ],
)
def test_what_are_no_answers_is_refused(ids, logits, says):
    with pytest.raises(UserError, match=says):
        answers(ids, logits)


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_store_is_one_message(tmp_path, damage):
    path = tmp_path / "answers.npz"
    answers(["a", "b"]).write(path)
    whole = path.read_bytes()
    if damage == "other":
        np.savez(path, ids=np.array(["a"]))
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello"}[damage])
    with pytest.raises(UserError, match=r"Expected a teacher's answers in .*damaged"):
        read_answers(path)


def test_a_store_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(UserError, match="there is none"):
        read_answers(tmp_path / "answers.npz")


def test_inputs_that_the_teacher_does_not_take_are_refused(linear):
    with pytest.raises(ModelError, match="Expected input"):
        answers_of(linear[0], np.zeros((1, 3), np.float32), ["a"])
