"""Claims about the further output that gives a student's penultimate features."""

import asyncio
from functools import partial

import numpy as np
import pytest
import torch
from common_fixtures import make_file
from feedback_logs import with_embedding
from registry_runs import make_run
from series_files import RECIPES, draw
from served import make_service, running
from torch import nn

from distill.deployment.deploy.model import read_model
from distill.deployment.export import SoftmaxHead, TopKHead, export_onnx, last_layer
from distill.deployment.series_graph import wrap_windows
from distill.deployment.table_graph import in_units, prepend_encoder
from distill.errors import UserError
from distill.production.routing.challenger import Challenger
from distill.runtime import EMBEDDING, ModelError, OnnxModel, answers_among
from distill.tables.columns import Column, Kind, make_records
from distill.tables.encoding import fit_encoder
from distill.tables.windows import fit_windows
from distill.tasks import Task, TaskKind
from distill.training.models import (
    CifarResNet,
    ImageClassifier,
    PlainCNN,
    TemperatureScaled,
    torchvision_classifier,
)
from distill.training.series_models import TCN
from distill.training.table_models import MLP, build_table_network

pytestmark = pytest.mark.slow

SHAPE = (32, 32, 3)
NETWORKS = {
    "tiny_cnn": lambda: PlainCNN(10, 3, widths=(8, 12, 16), dropout=0.5),
    "resnet": lambda: CifarResNet(10, 3, depth=8),
    "mobilenet": partial(torchvision_classifier, 10, 3, name="mobilenet_v3_small"),
    "squeezenet": partial(torchvision_classifier, 10, 3, name="squeezenet1_1"),
}


def features(name, network, images):
    """What the network computes before its last layer, by its own parts, [N, D]."""
    if name == "tiny_cnn":
        return network.features(images)
    if name == "resnet":
        return network.pool(network.blocks(network.stem(images)))
    if name == "mobilenet":
        pooled = network.avgpool(network.features(images)).flatten(1)
        return network.classifier[:-1](pooled)
    return network.features(images).mean(dim=(2, 3))  # its last layer is a convolution of places


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """Files with and without an embedding; the images, the logits and the features of torch."""
    torch.manual_seed(0)
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp(request.param)
    network = NETWORKS[request.param]()
    model = TemperatureScaled(ImageClassifier(network, [0.4] * 3, [0.3] * 3), 1.5)
    images = rng.integers(0, 256, (48, *SHAPE)).astype(np.uint8)
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.from_numpy(images))  # moves the statistics of batch norms
        logits = model.eval()(torch.from_numpy(images)).numpy()
        normal = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.4) / 0.3
        expected = features(request.param, network, normal).numpy()
    export_onnx(model, SHAPE, folder / "plain.onnx")
    export_onnx(model, SHAPE, folder / "whole.onnx", embedding=True)
    return folder, images, logits, expected


def test_it_is_what_the_last_layer_is_given_and_comes_behind_the_logits(exported):
    folder, images, logits, expected = exported
    model = OnnxModel(folder / "whole.onnx")
    assert model.output_names == ["logits", EMBEDDING]
    assert (model.has_embedding, OnnxModel(folder / "plain.onnx").has_embedding) == (True, False)
    found = model.embed(images, batch_size=7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(model.predict(images), logits, rtol=1e-3, atol=1e-3)
    assert model(images).shape == (48, 10)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_smaller_file_has_it_too_and_its_answers_are_those_without(exported, recipe, tmp_path):
    folder, images, _, expected = exported
    for name in ("plain", "whole"):
        make_file(RECIPES[recipe], folder / f"{name}.onnx", tmp_path / f"{name}.onnx", images)
    plain, whole = (OnnxModel(tmp_path / f"{name}.onnx") for name in ("plain", "whole"))
    assert whole.output_names == ["logits", EMBEDDING]
    answers = plain.predict(images)
    if recipe == "float16":
        np.testing.assert_allclose(whole.predict(images), answers, rtol=0.01, atol=0.01)
    else:
        np.testing.assert_array_equal(whole.predict(images), answers)
    found = whole.embed(images)
    assert found.dtype == np.float32
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.25 * expected.std()


@pytest.mark.parametrize(
    ("head", "names"),
    [(SoftmaxHead(), ["probabilities"]), (TopKHead(2), ["top_probabilities", "top_classes"])],
)
def test_it_stands_behind_what_a_head_makes(head, names, tmp_path):
    model = ImageClassifier(PlainCNN(10, 1, widths=(4, 8)), [0.4], [0.3]).eval()
    export_onnx(model, (8, 8, 1), tmp_path / "m.onnx", head=head, embedding=True)
    assert OnnxModel(tmp_path / "m.onnx").output_names == ["logits", *names, EMBEDDING]


@pytest.fixture(scope="module", params=[(16, 8), ()], ids=["hidden", "linear"])
def tables_file(request, tmp_path_factory):
    """A file that takes rows; these, the features and the numbers of torch."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("table") / "m.onnx"
    rows = make_records({
        "size": rng.normal(5, 2, 300),
        "city": np.array([f"city {i}" for i in rng.integers(0, 40, 300)]),
    })  # fmt: skip
    columns = [Column(name="size", kind=Kind.NUMBER), Column(name="city", kind=Kind.CATEGORY)]
    encoder = fit_encoder(columns, rows)
    task = Task(kind=TaskKind.REGRESSION, outputs=("price",), mean=(1e5,), scale=(2e4,))
    torch.manual_seed(0)
    student = partial(MLP, widths=request.param)
    model = build_table_network(student, num_classes=1, layout=encoder.layout).eval()
    width = encoder.layout.num_features
    export_onnx(model, (width,), path, dtype=torch.float32, embedding=True, kind=task.kind)
    prepend_encoder(encoder, path)
    in_units(task, path)
    network, encoded = model.network, torch.from_numpy(encoder(rows))
    with torch.no_grad():
        hidden = network.hidden(network.features(encoded)).numpy()
        return path, rows, hidden, network(encoded).numpy() * 2e4 + 1e5


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_a_tables_file_gives_hidden_features_and_numbers_in_their_units(
    tables_file, recipe, tmp_path
):
    path, rows, hidden, numbers = tables_file
    if recipe is not None:
        make_file(RECIPES[recipe], path, tmp_path / "small.onnx", rows)
        path = tmp_path / "small.onnx"
    found = OnnxModel(path)
    assert found.output_names == ["predictions", EMBEDDING]
    for given, expected in ((found.embed(rows), hidden), (found.predict(rows), numbers)):
        difference = np.sqrt(np.mean((given - expected) ** 2))
        assert difference < (1e-4 if recipe is None else 0.1) * expected.std()


def test_of_a_network_with_two_ends_it_is_what_the_head_is_given(tmp_path):
    rows = draw(names=["price"])
    windows = fit_windows(rows, known=["price"], horizon=3)
    torch.manual_seed(0)
    model = build_table_network(TCN, num_classes=3, layout=windows.layout).eval()
    assert last_layer(model) is model.network.head
    path, width = tmp_path / "m.onnx", windows.layout.num_features
    export_onnx(model, (width,), path, dtype=torch.float32, embedding=True)
    wrap_windows(windows, path)
    network, encoded = model.network, torch.from_numpy(windows(rows))
    with torch.no_grad():
        past, ahead = network.fields(encoded)
        hidden = network.hidden(torch.cat([network.blocks(past)[:, :, -1], ahead], dim=1)).numpy()
    np.testing.assert_allclose(OnnxModel(path).embed(rows), hidden, rtol=1e-3, atol=1e-4)


class Unnamed(nn.Module):
    def forward(self, image):
        return image.float().flatten(1)[:, :10]


class Unused(Unnamed):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 10)


@pytest.mark.parametrize(("network", "says"), [(Unnamed, "neither a `head`"), (Unused, "last lay")])
def test_a_network_without_a_last_layer_is_one_message(network, says, tmp_path):
    with pytest.raises(UserError, match=says) as refused:
        export_onnx(network().eval(), (8, 8, 1), tmp_path / "m.onnx", embedding=True)
    assert "`embedding=false`" in str(refused.value)
    assert not (tmp_path / "m.onnx").exists()


def test_who_asks_a_file_without_one_is_told_how_to_get_it(exported):
    with pytest.raises(ModelError, match="embedding=true"):
        OnnxModel(exported[0] / "plain.onnx").embed(exported[1])


def test_an_only_output_is_an_answer_whatever_it_is_called():
    assert answers_among([EMBEDDING]) == [EMBEDDING]
    assert answers_among(["logits", "scores", EMBEDDING]) == ["logits", "scores"]


def test_a_challengers_process_does_not_send_it_either(tmp_path):
    folder = make_run(tmp_path / "run") / "export"
    with_embedding(folder / "model.onnx", folder / "model.onnx")

    async def ask():
        challenger = Challenger(folder / "model.onnx")
        await challenger.start()
        try:
            assert await challenger.ready(60.0)
            return await challenger.ask({"image": np.ones((1, 2, 2, 1), np.uint8)}, 60.0)
        finally:
            await challenger.stop()

    assert set(asyncio.run(ask())) == {"logits"}


def test_other_serving_systems_are_not_told_of_it(tmp_path):
    folder = make_run(tmp_path / "run") / "export"
    with_embedding(folder / "model.onnx", folder / "model.onnx")
    told = read_model(folder / "model.onnx")
    assert [output.name for output in told.outputs] == ["logits"]


def test_the_service_neither_offers_nor_sends_it(tmp_path):
    folder = make_run(tmp_path / "run") / "export"
    with_embedding(folder / "model.onnx", folder / "model.onnx")
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}
    with running(make_service(folder)) as client:
        (output,) = client.get("/v2/models/pets").json()["outputs"]
        assert output["name"] == "logits"
        said = client.post("/v2/models/pets/infer", json={"inputs": [image]}).json()
        assert [own["name"] for own in said["outputs"]] == ["logits"]
        asked = {"inputs": [image], "outputs": [{"name": EMBEDDING}]}
        assert client.post("/v2/models/pets/infer", json=asked).status_code == 400
