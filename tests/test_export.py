import numpy as np
import onnx
import pytest
import torch
from torch import nn

from distill.deployment.export import SoftmaxHead, TopKHead, check_parity, export_onnx
from distill.deployment.parity import measure_parity
from distill.errors import UserError
from distill.runtime import ModelError, OnnxModel
from distill.training.fit import predict_logits
from distill.training.models import CifarResNet, ImageClassifier, PlainCNN

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = ImageClassifier(PlainCNN(10, 1, widths=(4, 8), dropout=0.5), [0.3], [0.4])
    model(torch.randint(0, 256, (64, *SHAPE), dtype=torch.uint8))  # moves BatchNorm statistics
    return model.eval()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (50, *SHAPE)).astype(np.uint8)


def test_the_exported_file_answers_as_torch_does(model, images, tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(model, SHAPE, path)
    found = OnnxModel(path).predict(images, batch_size=7)  # any batch size
    np.testing.assert_allclose(found, predict_logits(model, images), atol=1e-4)


def test_residual_networks_survive_the_exporter(tmp_path, rng):
    torch.manual_seed(0)
    model = ImageClassifier(CifarResNet(10, 3, depth=8), [0.5] * 3, [0.2] * 3).eval()
    images = rng.integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    export_onnx(model, (32, 32, 3), tmp_path / "m.onnx")
    found = OnnxModel(tmp_path / "m.onnx").predict(images)
    np.testing.assert_allclose(found, predict_logits(model, images), rtol=1e-3, atol=1e-3)


def test_the_file_is_one_with_preprocessing_inside(model, tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(model, SHAPE, path)
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    tensor = proto.graph.input[0].type.tensor_type
    assert tensor.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in tensor.shape.dim][1:] == [8, 8, 1]
    assert tensor.shape.dim[0].dim_param


def test_a_model_in_training_mode_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="eval mode"):
        export_onnx(model.train(), SHAPE, tmp_path / "m.onnx")


def test_live_dropout_is_refused(tmp_path):
    class Noisy(nn.Module):
        def forward(self, image):
            return nn.functional.dropout(image.float().flatten(1), 0.5, training=True)

    with pytest.raises(UserError, match="holds Dropout"):
        export_onnx(Noisy().eval(), SHAPE, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_data_dependent_python_is_refused_in_one_message(tmp_path):
    class Branching(nn.Module):
        def forward(self, image):
            x = image.float().flatten(1)
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match="Branching"):
        export_onnx(Branching().eval(), SHAPE, tmp_path / "m.onnx")


def test_disagreement_beyond_the_budget_is_refused_and_the_file_removed(model, images, tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(model, SHAPE, path)
    other = predict_logits(model, images) + np.linspace(0, 1, 10, dtype=np.float32)
    with pytest.raises(UserError, match="answer as torch does"):
        check_parity(other, path, images, max_logit_std=0.01, min_top1_agreement=None)
    assert not path.exists()


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(model, tmp_path):
    export_onnx(model, SHAPE, tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    assert b".py" not in content
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert len(content) < weights + 12_000


def test_a_head_adds_outputs_and_leaves_the_logits_first(model, images, tmp_path):
    export_onnx(model, SHAPE, tmp_path / "m.onnx")
    logits = OnnxModel(tmp_path / "m.onnx").predict(images)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for head, names in (
        (SoftmaxHead(), ["probabilities"]),
        (TopKHead(3), ["top_probabilities", "top_classes"]),
    ):
        export_onnx(model, SHAPE, tmp_path / "h.onnx", head=head)
        found = OnnxModel(tmp_path / "h.onnx")
        assert found.output_names == ["logits", *names]
        np.testing.assert_allclose(found.predict(images), logits, atol=1e-5)
        outputs = found.session.run(None, {"image": images})
        if len(outputs) == 2:
            np.testing.assert_allclose(outputs[1], probabilities, atol=1e-5)
        else:
            np.testing.assert_array_equal(outputs[2], np.argsort(-logits, axis=1)[:, :3])
            np.testing.assert_allclose(outputs[1], -np.sort(-probabilities)[:, :3], atol=1e-5)


def test_a_head_of_no_classes_is_refused():
    with pytest.raises(ValueError, match="`k` > 0"):
        TopKHead(0)


def test_parity_by_hand():
    reference = np.array([[0.0, 2.0], [2.0, 0.0]])
    found = measure_parity(reference, reference + np.array([[0.5, -0.5], [0.0, 0.0]]))
    assert found.max_abs == 0.5
    assert found.logit_std == pytest.approx(np.sqrt(0.5 / 4) / 1.0)
    assert found.top1_agreement == 1.0


@pytest.mark.parametrize("content", [None, b"", b"nonsense", "half"])
def test_a_file_that_is_no_model_is_one_message(model, tmp_path, content):
    path = tmp_path / "m.onnx"
    if content == "half":
        export_onnx(model, SHAPE, path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"Expected an ONNX (file|model)"):
        OnnxModel(path)


def test_inputs_of_another_shape_or_type_are_refused(model, images, tmp_path):
    export_onnx(model, SHAPE, tmp_path / "m.onnx")
    runner = OnnxModel(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="uint8"):
        runner.predict(images.astype(np.float32))
    with pytest.raises(ModelError, match="Expected input"):
        runner.predict(images[:, :4])
