"""Claims about what Triton is given: it is what onnxruntime says of the file."""

import dataclasses
import json

import onnxruntime
import pytest
from deployable import CLASSES, COLUMNS, exported, parsed, written
from hypothesis import given
from hypothesis import strategies as st
from serving_schemas import DATA_TYPES

from distill.contract import (
    HASH_KEY,
)
from distill.deployment.deploy import triton
from distill.deployment.deploy.model import Tensor, read_model
from distill.deployment.deploy.triton import Triton
from distill.errors import UserError
from distill.runtime import OnnxModel
from distill.tasks import Task, TaskKind

IN_TRITON = {
    "tensor(uint8)": "UINT8",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(string)": "STRING",
}


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("batch", ["batch", 1])
def test_what_is_declared_is_what_onnxruntime_says_of_the_file_that_lies_there(
    tmp_path, table, batch
):
    path = exported(tmp_path / "export", table=table, batch=batch)
    config, folder = written(path, Triton(), tmp_path / "out")
    assert folder.name == config.name == "digits"
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    for declared, found in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert [own.name for own in declared] == [own.name for own in found]
        for own, node in zip(declared, found, strict=True):
            assert DATA_TYPES[own.data_type] == IN_TRITON[node.type]
            assert list(own.dims) == node.shape[1 if config.max_batch_size else 0 :]
    assert config.max_batch_size == (0 if batch == 1 else 64)
    assert config.HasField("dynamic_batching") == (batch == "batch")
    assert (folder / "1" / "model.onnx").read_bytes() == path.read_bytes()


def test_images_are_bytes_with_the_channel_last_and_classes_have_their_lines(tmp_path):
    config, folder = written(exported(tmp_path / "export"), Triton(), tmp_path / "out")
    (image,) = config.input
    assert DATA_TYPES[image.data_type] == "UINT8"
    assert (image.format, list(image.dims)) == (1, [4, 6, 1])  # NHWC
    assert (folder / config.output[0].label_filename).read_text().splitlines() == list(CLASSES)
    assert json.loads((folder / "contract.json").read_text())["classes"] == list(CLASSES)


def test_every_column_of_a_table_is_an_input_by_its_own_name(tmp_path):
    config, _ = written(exported(tmp_path / "export", table=True), Triton(), tmp_path / "out")
    types = {own.name: DATA_TYPES[own.data_type] for own in config.input}
    assert types == dict(zip([c.name for c in COLUMNS], ["FP64", "STRING", "INT64"], strict=True))
    assert all(own.format == 0 for own in config.input)


def test_it_runs_on_the_processor_with_the_threads_it_was_measured_with(tmp_path):
    path = exported(tmp_path / "export")
    system = Triton(num_threads=4, max_batch_size=8, max_queue_delay_ms=1.5)
    config, _ = written(path, system, tmp_path / "out")
    assert [(group.kind, group.count) for group in config.instance_group] == [(2, 1)]  # CPU
    parameters = {own.key: own.value.string_value for own in config.parameters}
    assert parameters["intra_op_thread_count"] == "4"
    assert parameters[HASH_KEY] == OnnxModel(path).metadata[HASH_KEY]
    assert config.max_batch_size == 8
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert config.version_policy.latest.num_versions == 1


@pytest.mark.parametrize(
    ("classes", "task"),
    [
        (("a", "b"), Task(kind=TaskKind.REGRESSION, outputs=("a", "b"))),
        (("a", "b\nc"), None),  # a line of its own would name another class
    ],
)
def test_there_are_no_labels_for_numbers_nor_where_a_class_has_no_line(tmp_path, classes, task):
    path = exported(tmp_path / "export", classes=classes, task=task)
    config, folder = written(path, Triton(), tmp_path / "out")
    assert config.output[0].label_filename == ""
    assert not (folder / "labels.txt").exists()


@pytest.mark.slow
@given(st.text())
def test_any_text_survives_the_text_format(text):
    message = {"name": text, "parameters": [{"key": text, "value": {"string_value": text}}]}
    config = parsed(triton.text_format(message))
    assert config.name == config.parameters[0].key == text
    assert config.parameters[0].value.string_value == text


def test_a_type_that_triton_lacks_is_one_message(tmp_path):
    model = read_model(exported(tmp_path / "export"))
    odd = Tensor(name="logits", type="tensor(complex64)", shape=(None, 3))
    with pytest.raises(UserError, match=r"`logits` of a type that Triton has but .*complex64"):
        Triton().config(dataclasses.replace(model, outputs=(odd,)))
