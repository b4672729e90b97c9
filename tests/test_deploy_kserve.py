"""Claims about what KServe is given: it holds to its schema."""

import jsonschema
import pytest
import yaml
from deployable import exported, kserve_of, written
from serving_schemas import INFERENCE_SERVICE

from distill.deployment.deploy import kserve
from distill.deployment.deploy.model import read_model
from distill.deployment.deploy.triton import Triton
from distill.files import sha256


@pytest.mark.parametrize("table", [False, True])
def test_an_inference_service_holds_to_its_schema(tmp_path, table):
    path = exported(tmp_path / "export", table=table)
    system = kserve_of(namespace="shop", peak_rss_bytes=200_000_000)
    config, _ = written(path, system, tmp_path / "out")
    manifest = yaml.safe_load((tmp_path / "out" / kserve.MANIFEST).read_text())
    jsonschema.validate(manifest, INFERENCE_SERVICE)
    assert manifest["metadata"]["name"] == config.name
    assert manifest["metadata"]["annotations"]["distill.artefact-sha256"] == sha256(path)
    predictor = manifest["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 10
    assert predictor["model"]["storageUri"] == "gs://bucket/digits/3"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["spec"]["predictor"].update(canaryTrafficPercent=101),
        lambda m: m["spec"]["predictor"].update(canaryTrafficPercent="10"),
        lambda m: m["spec"]["predictor"].update(canaryPercent=10),
        lambda m: m["spec"]["predictor"]["model"].update(storageURI="gs://b"),
        lambda m: m["spec"]["predictor"]["model"].pop("modelFormat"),
        lambda m: m["metadata"].update(name="My_Model"),
        lambda m: m["spec"].update(canary={}),
    ],
)
def test_the_schema_refuses_what_kserve_refuses(tmp_path, change):
    manifest = kserve_of().manifest(read_model(exported(tmp_path)))
    change(manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, INFERENCE_SERVICE)


def test_a_canary_asks_for_the_mode_that_splits_traffic(tmp_path):
    manifest = kserve_of(canary_percent=0).manifest(read_model(exported(tmp_path)))
    assert manifest["spec"]["predictor"]["canaryTrafficPercent"] == 0
    mode = manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert mode == "Knative"


def test_resources_are_the_servers_and_the_models_and_as_many_processors_as_threads(tmp_path):
    model = read_model(exported(tmp_path))
    system = kserve_of(
        server_bytes=2**30, peak_rss_bytes=2**20 + 1, repository=Triton(num_threads=2)
    )
    resources = system.manifest(model)["spec"]["predictor"]["model"]["resources"]
    assert resources["requests"] == {"cpu": "2", "memory": "1026Mi"}  # rounded up
    assert resources["limits"] == resources["requests"]
    alone = kserve_of(server_bytes=2**30).manifest(model)
    assert alone["spec"]["predictor"]["model"]["resources"]["limits"]["memory"] == "1024Mi"


def test_the_manifest_comes_after_the_model_and_the_model_after_its_configuration(tmp_path):
    files = kserve_of().files(read_model(exported(tmp_path)))
    assert [name.rpartition("/")[2] for name in files] == [
        "config.pbtxt", "contract.json", "labels.txt", "model.onnx", "inference_service.yaml",
    ]  # fmt: skip
