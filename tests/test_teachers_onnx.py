"""Claims about any ONNX file as teacher, held against onnxruntime asked directly."""

import copy
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import softmax

from distill.contract import HASH_KEY, Contract, ImageInput, Normalization, save_contract
from distill.deployment.export import embed_metadata
from distill.errors import UserError
from distill.training.teachers.classes import match_classes
from distill.training.teachers.onnx import OnnxTeacher, weights_files

MEAN, STD = [0.2, 0.5, 0.7], [0.3, 0.2, 0.5]
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
INDEX = torch.arange(10)


def save(path, nodes, shape, *, dtype=FLOAT, output=FLOAT, extra=(), **weights):
    """Write an ONNX file of these nodes, from `x` to `y`."""
    inputs = [helper.make_tensor_value_info("x", dtype, shape), *extra]
    outputs = [helper.make_tensor_value_info("y", output, None)]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def linear(path, shape, *, dtype=FLOAT, ends_in=(), output=FLOAT, seed=0, num_classes=5):
    """Write a linear classifier of five classes, or with more nodes after its logits."""
    rng = np.random.default_rng(seed)
    scale = 255 if dtype == UINT8 else 1
    weight = rng.normal(0, 0.3 / scale, (int(np.prod(shape[1:])), num_classes))
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["z" if ends_in else "y"]),
        *ends_in,
    ]
    return save(path, nodes, shape, dtype=dtype, output=output, weight=weight.astype(np.float32))


SOFTMAX = (helper.make_node("Softmax", ["z"], ["y"], axis=1),)


def ask(path, x):
    """Ask onnxruntime itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)


def logits_of(teacher, images):
    return teacher(torch.from_numpy(images), torch.arange(len(images))).logits.numpy()


def normalised(images):
    return (images / 255 - MEAN) / STD


def test_a_uint8_model_is_given_the_images_as_they_are(images, tmp_path):
    path = linear(tmp_path / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8)
    teacher = OnnxTeacher(path)
    assert not teacher.computes_in_torch
    np.testing.assert_array_equal(logits_of(teacher, images), ask(path, images))


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"),
    [(FLOAT, np.float32), (TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)],
)
@pytest.mark.parametrize("channels_first", [True, False])
def test_a_float_model_is_given_normalised_pixels(
    images, tmp_path, dtype, numpy_dtype, channels_first
):
    shape = ["batch", 3, 8, 6] if channels_first else ["batch", 8, 6, 3]
    path = linear(tmp_path / "a.onnx", shape, dtype=dtype)
    found = logits_of(OnnxTeacher(path, mean=MEAN, std=STD), images)
    x = normalised(images)
    x = x.transpose(0, 3, 1, 2) if channels_first else x
    expected = ask(path, np.ascontiguousarray(x.astype(numpy_dtype)))
    np.testing.assert_allclose(found, expected, atol=2e-2 if numpy_dtype is np.float16 else 1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("num_images", [1, 4, 10])
def test_a_fixed_batch_size_answers_any_number_of_images(images, tmp_path, num_images):
    fixed = linear(tmp_path / "fixed.onnx", [4, 8, 6, 3], dtype=UINT8)
    free = linear(tmp_path / "free.onnx", ["batch", 8, 6, 3], dtype=UINT8)
    found = logits_of(OnnxTeacher(fixed), images[:num_images])
    np.testing.assert_allclose(found, ask(free, images[:num_images]), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 9), (5, 4), (8, 12)])
@pytest.mark.parametrize("dtype", [FLOAT, UINT8])
def test_images_are_resized_to_a_fixed_size(images, tmp_path, size, dtype):
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=FLOAT),
        helper.make_node("Flatten", ["float"], ["y"]),  # answers the pixels that it is given
    ]
    path = save(tmp_path / "a.onnx", nodes, ["batch", *size, 3], dtype=dtype)
    options = {} if dtype == UINT8 else {"mean": MEAN, "std": STD}
    found = logits_of(OnnxTeacher(path, **options), images).reshape(10, *size, 3)
    ready = (images if dtype == UINT8 else normalised(images)).astype(np.float32)
    for image, channel in np.ndindex(10, 3):
        plane = Image.fromarray(ready[image, :, :, channel])
        expected = np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR))
        within = 0.5 if dtype == UINT8 else 0  # of a pixel: the nearest whole number
        np.testing.assert_allclose(found[image, :, :, channel], expected, atol=within + 1e-4)


def test_probabilities_become_logits_of_the_same_probabilities(images, tmp_path):
    path = linear(tmp_path / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8, ends_in=SOFTMAX)
    found = logits_of(OnnxTeacher(path, outputs_probabilities=True), images)
    np.testing.assert_allclose(softmax(found, axis=1), ask(path, images), atol=1e-6)
    plain = logits_of(OnnxTeacher(path, outputs_probabilities=False), images)
    np.testing.assert_array_equal(plain, ask(path, images))
    with pytest.raises(UserError, match="outputs_probabilities=true`, or `false`"):
        logits_of(OnnxTeacher(path), images)


def test_a_probability_of_zero_in_half_precision_has_a_finite_logit(images, tmp_path):
    ends = (
        helper.make_node("Mul", ["z", "z"], ["squared"]),
        helper.make_node("Mul", ["squared", "squared"], ["sharp"]),
        helper.make_node("Softmax", ["sharp"], ["p"], axis=1),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT16),
    )
    path = linear(
        tmp_path / "a.onnx", ["b", 8, 6, 3], dtype=UINT8, ends_in=ends, output=TensorProto.FLOAT16
    )
    expected = ask(path, images)
    assert (expected == 0).any()
    found = logits_of(OnnxTeacher(path, outputs_probabilities=True), images)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(softmax(found, axis=1), expected, atol=2e-3)


def test_its_classes_are_mapped_by_name(images, tmp_path):
    path = linear(tmp_path / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8)
    mapped = match_classes(OnnxTeacher(path, "abcde"), "ecb", drop_classes=True)
    np.testing.assert_array_equal(logits_of(mapped, images), ask(path, images)[:, [4, 2, 1]])


def test_a_contract_beside_the_file_names_its_classes(tmp_path):
    contract = Contract(
        input=ImageInput(name="x", height=8, width=6, channels=3),
        normalization=Normalization(mean=tuple(MEAN), std=tuple(STD)),
        output="y",
        classes=tuple("abcde"),
        provenance={},
        golden_sha256="",
    )
    path = linear(tmp_path / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8)
    assert OnnxTeacher(path).classes is None
    save_contract(contract, tmp_path)
    assert OnnxTeacher(path).classes is None  # another file that happens to lie there
    embed_metadata(path, {HASH_KEY: "0" * 64})
    with pytest.raises(UserError, match="carry the hash of the contract beside it"):
        OnnxTeacher(path)
    assert OnnxTeacher(path, "vwxyz").classes == tuple("vwxyz")
    embed_metadata(path, {HASH_KEY: contract.sha256})
    assert OnnxTeacher(path).classes == tuple("abcde")


def test_a_fingerprint_changes_with_the_file_and_how_it_is_used(tmp_path):
    first = linear(tmp_path / "a.onnx", ["batch", 3, 8, 6])
    other = linear(tmp_path / "b.onnx", ["batch", 3, 8, 6], seed=1)
    prints = [
        OnnxTeacher(first, mean=MEAN, std=STD).fingerprint,
        OnnxTeacher(other, mean=MEAN, std=STD).fingerprint,
        OnnxTeacher(first, mean=MEAN, std=[1, 1, 1]).fingerprint,
        OnnxTeacher(first, mean=[0, 0, 0], std=STD).fingerprint,
        OnnxTeacher(first, mean=MEAN, std=STD, outputs_probabilities=True).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert OnnxTeacher(first, mean=MEAN, std=STD).fingerprint == prints[0]


def test_one_number_is_the_mean_of_every_channel(tmp_path):
    path = linear(tmp_path / "a.onnx", ["batch", 3, 8, 6])
    one, three = (OnnxTeacher(path, mean=m, std=s) for m, s in ((0.5, 0.2), ([0.5] * 3, [0.2] * 3)))
    assert one.fingerprint == three.fingerprint


@pytest.mark.parametrize("location", ["a.onnx.data", "weights.bin"])
def test_weights_beside_the_file_count_for_its_fingerprint(tmp_path, location):
    prints = []
    for seed in (0, 1):
        path = linear(tmp_path / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8, seed=seed)
        (tmp_path / location).unlink(missing_ok=True)
        onnx.save(
            onnx.load(path), path, save_as_external_data=True, location=location,
            size_threshold=0,
        )  # fmt: skip
        assert path.stat().st_size < 1000
        assert weights_files(path) == [path, tmp_path / location]
        prints.append((OnnxTeacher(path).fingerprint, path.read_bytes()))
    assert prints[0][1] == prints[1][1]  # the file itself is the same
    assert prints[0][0] != prints[1][0]
    path.write_bytes(b"nonsense")
    assert weights_files(path) == [path]


def test_a_session_is_opened_anew_for_a_copy_and_after_a_fork(images, tmp_path, monkeypatch):
    path = linear(tmp_path / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8)
    teacher = OnnxTeacher(path)
    copied, session = copy.deepcopy(teacher), teacher._model.session
    np.testing.assert_array_equal(logits_of(copied, images), ask(path, images))
    assert teacher._model.session is session
    assert copied._model.session is not session
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert teacher._model.session is not session


def truncated(folder):
    path = linear(folder / "a.onnx", ["batch", 8, 6, 3], dtype=UINT8)
    path.write_bytes(path.read_bytes()[:400])
    return path


def two_inputs(folder):
    extra = [helper.make_tensor_value_info("w", FLOAT, ["batch", 8, 6, 3])]
    nodes = [helper.make_node("Add", ["x", "w"], ["s"]), helper.make_node("Flatten", ["s"], ["y"])]
    return save(folder / "a.onnx", nodes, ["batch", 8, 6, 3], extra=extra)


def of_shape(*shape, dtype=FLOAT):
    def make(folder):
        return save(folder / "a.onnx", [helper.make_node("Identity", ["x"], ["y"])], shape,
                    dtype=dtype, output=dtype)  # fmt: skip

    return make


def ending(*nodes, output=FLOAT):
    def make(folder):
        return linear(folder / "a.onnx", ["b", 8, 6, 3], dtype=UINT8, ends_in=nodes, output=output)

    return make


RGB, BYTES = of_shape("b", 3, 8, 6), ending(SOFTMAX[0])
STATISTICS = r"`teacher.mean` and `teacher.std` \(above 0\) of 3 channels"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda folder: folder / "none.onnx", {}, "there is none"),
        (truncated, {}, "truncated or something else"),
        (two_inputs, {}, r"one input .* but found x \[.*, w \["),
        (of_shape("b", 7), {}, r"takes tensor\(float\) \[None, 7\]. Name an image classifier"),
        (of_shape("b", 8, 8, 3, dtype=TensorProto.INT64), {}, r"takes tensor\(int64\)"),
        (of_shape("b", 3, 8, 3), {}, "1 or 3 channels"),
        (of_shape("b", "c", 8, 8), {}, "1 or 3 channels"),
        (RGB, {}, STATISTICS),
        (RGB, {"mean": MEAN}, STATISTICS),
        (RGB, {"mean": MEAN[:1], "std": STD[:1]}, STATISTICS),
        (RGB, {"mean": MEAN, "std": [0.1, 0, 0.1]}, STATISTICS),
        (BYTES, {"mean": MEAN, "std": STD}, "Expected no `teacher.mean`"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_usable_classifier_is_refused_when_opened(
    make, options, message, tmp_path
):
    with pytest.raises(UserError, match=message):
        OnnxTeacher(make(tmp_path), **options)


LABELS = helper.make_node("ArgMax", ["z"], ["y"], axis=1, keepdims=0)
SCALAR = helper.make_node("ReduceSum", ["z"], ["y"], keepdims=0)
NOT_A_NUMBER = helper.make_node("Log", ["z"], ["y"])  # of negative logits


@pytest.mark.parametrize(
    ("make", "options", "channels", "message"),
    [
        (BYTES, {}, 1, "images of 3 channels .* but the data has 1"),
        (BYTES, {"classes": "abcd"}, 3, "answer for 4 classes but it answers for 5"),
        (ending(), {"outputs_probabilities": True}, 3, "probabilities that sum to 1"),
        (ending(LABELS, output=TensorProto.INT64), {}, 3, "float logits .* but got int64"),
        (ending(SCALAR), {}, 3, "first output .* zero-dimensional"),
        (ending(NOT_A_NUMBER), {}, 3, "finite numbers from .* such as index"),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_used_are_refused(
    make, options, channels, message, images, tmp_path
):
    teacher = OnnxTeacher(make(tmp_path), **options)
    with pytest.raises(UserError, match=message):
        logits_of(teacher, images[..., :channels])
