"""Claims about what other serving systems are given: it is what onnxruntime says of the file."""

import dataclasses
import json
import os

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from conftest import run_cli
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from serving_schemas import DATA_TYPES, INFERENCE_SERVICE, ModelConfig

from distill.columns import Column, Kind
from distill.contract import (
    HASH_KEY,
    Contract,
    ImageInput,
    Normalization,
    TableInput,
    save_contract,
    write_golden,
)
from distill.deployment.deploy import kserve, triton
from distill.deployment.deploy.kserve import KServe
from distill.deployment.deploy.model import Tensor, name_of, read_model, write_files
from distill.deployment.deploy.triton import Triton
from distill.errors import UsageError, UserError
from distill.files import sha256, write_json
from distill.runtime import OnnxModel
from distill.tasks import Task, TaskKind
from distill.training.fit import save_weights
from distill.training.models import ImageClassifier, PlainCNN
from distill.verbs.deploy import shipped

CLASSES = ("cat", "dog", "größer als")
COLUMNS = (  # names as people give them
    Column(name='the "size"\\n', kind=Kind.NUMBER),
    Column(name="straße", kind=Kind.CATEGORY),
    Column(name="since\tthen", kind=Kind.DATE),
)
OF_KIND = {Kind.NUMBER: (TensorProto.DOUBLE, "f8"), Kind.CATEGORY: (TensorProto.STRING, "U4")}
IN_TRITON = {
    "tensor(uint8)": "UINT8",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(string)": "STRING",
}


def image_graph(batch, num_outputs):
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 4, 6, 1])
    weights = np.random.default_rng(0).normal(size=(24, num_outputs)).astype(np.float32)
    return nodes, [taken], numpy_helper.from_array(weights, "weights")


def table_graph(batch, num_outputs):
    nodes, taken, numbers = [], [], []
    for index, column in enumerate(COLUMNS):
        kind = OF_KIND.get(column.kind, (TensorProto.INT64, "i8"))[0]
        taken.append(helper.make_tensor_value_info(column.name, kind, [batch, 1]))
        raw = column.name
        if column.kind is Kind.CATEGORY:
            raw = "code"
            nodes.append(
                helper.make_node(
                    "LabelEncoder", [column.name], [raw], domain="ai.onnx.ml",
                    keys_strings=["a"], values_int64s=[1], default_int64=0,
                )
            )  # fmt: skip
        numbers.append(f"number{index}")
        nodes.append(helper.make_node("Cast", [raw], numbers[-1:], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Concat", numbers, ["row"], axis=1))
    nodes.append(helper.make_node("MatMul", ["row", "weights"], ["logits"]))
    weights = np.ones((len(COLUMNS), num_outputs), np.float32)
    return nodes, taken, numpy_helper.from_array(weights, "weights")


def exported(folder, *, table=False, batch="batch", classes=CLASSES, task=None, data="digits"):
    """A model beside its contract and golden samples, as an export leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes, taken, weights = (table_graph if table else image_graph)(batch, len(classes))
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(classes)])
    graph = helper.make_graph(nodes, "g", taken, [given], [weights])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = folder / "model.onnx"
    onnx.save(proto, path)
    num_golden = 1 if batch == 1 else 2
    golden = np.zeros((num_golden, 4, 6, 1), np.uint8)
    if table:
        types = [(c.name, OF_KIND.get(c.kind, (0, "i8"))[1]) for c in COLUMNS]
        golden = np.ones(num_golden, types)
    contract = Contract(
        input=None if table else ImageInput(name="image", height=4, width=6, channels=1),
        normalization=None if table else Normalization(mean=(0.0,), std=(1.0,)),
        table=TableInput(columns=COLUMNS, categories={"straße": ["a"]}) if table else None,
        task=task,
        output="logits",
        classes=classes,
        provenance={"data": {"name": data, "sha256": "0"}},
        golden_sha256=write_golden(folder, golden, {path.name: OnnxModel(path).predict(golden)}),
    )
    save_contract(contract, folder)
    proto.metadata_props.add(key=HASH_KEY, value=contract.sha256)
    onnx.save(proto, path)
    return path


def kserve_of(**options):
    options = {"storage_uri": "gs://bucket/digits/3", "repository": Triton(), **options}
    return KServe(**options)


def parsed(text):
    return text_format.Parse(text, ModelConfig())


def written(path, deployment, folder):
    """Write files; return what config.pbtxt says, and the folder of the model."""
    write_files(folder, deployment.files(read_model(path)))
    (config,) = folder.rglob("config.pbtxt")
    return parsed(config.read_text()), config.parent


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


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("Digits", "digits"),
        ("my_table (2)", "my-table-2"),
        ("7 days", "days"),
        ("数", "model"),
        ("x" * 80, "x" * 53),
    ],
)
def test_a_name_is_made_of_the_datas(tmp_path, data, name):
    model = read_model(exported(tmp_path, data=data))
    assert name_of(model, None) == name
    assert kserve_of(name=name).manifest(model)["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Triton(name="my_model"), r"deploy\.name` in lower-case .* 'my_model'"),
        (lambda: kserve_of(name="-a"), r"`deploy\.name`"),
        (lambda: kserve_of(name="a" * 54), r"at most 53 characters"),
        (lambda: kserve_of(name="a", repository=Triton(name="b")), "one name for service"),
        (lambda: kserve_of(storage_uri="bucket/digits"), r"deploy\.storage_uri` .* 'bucket/dig"),
        (lambda: kserve_of(storage_uri=None), r"deploy\.storage_uri` .* None"),
        (lambda: kserve_of(storage_uri="gs://"), r"deploy\.storage_uri`"),
        (lambda: kserve_of(canary_percent=101), "whole number from 0 to 100 but got 101"),
        (lambda: kserve_of(canary_percent=-1), "whole number from 0 to 100 but got -1"),
        (lambda: kserve_of(canary_percent=2.5), "whole number from 0 to 100 but got 2.5"),
        (lambda: kserve_of(min_replicas=4), r"max_replicas` .* at least 4 but got 3"),
        (lambda: Triton(max_batch_size=0), r"max_batch_size` .* at least 1 but got 0"),
        (lambda: Triton(max_queue_delay_ms=-1), r"max_queue_delay_ms` of `deploy` .* got -1"),
    ],
)
def test_what_no_cluster_would_take_is_one_message(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_only_a_whole_export_is_deployed(tmp_path):
    with pytest.raises(UserError, match=r"Expected an ONNX file at .* but there is none"):
        read_model(tmp_path / "model.onnx")
    path = exported(tmp_path / "export")
    alone = tmp_path / "model.onnx"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"its own contract\.json beside it"):
        read_model(alone)
    (path.parent / "golden.npz").unlink()
    with pytest.raises(UserError, match="golden samples"):
        read_model(path)


def test_the_verdicts_choice_ships_and_else_the_last(tmp_path):
    folder = tmp_path / "export"
    path = exported(folder)
    (folder / "model.int8.onnx").write_bytes(b"smaller")
    names = ["model.onnx", "model.int8.onnx"]
    assert shipped(folder, names).name == "model.int8.onnx"
    verdict = {"chosen": {"artefact": "model.onnx"}, "artefacts": {"model.onnx": sha256(path)}}
    write_json(tmp_path / "verdict.json", verdict)
    assert shipped(folder, names).name == "model.onnx"
    verdict["artefacts"]["model.onnx"] = "of another file"
    write_json(tmp_path / "verdict.json", verdict)
    assert shipped(folder, names).name == "model.int8.onnx"


def test_an_export_is_deployed_later_without_torch_and_without_its_data(tmp_path):
    path = exported(tmp_path / "before" / "export")
    (tmp_path / "torch.py").write_text("raise ImportError('nobody should need torch')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = run_cli(
        "export", f"artefact={path}", "deploy=kserve", "deploy.storage_uri=s3://b/digits/1",
        "run_dir=run", "experiment=image_folder", "data.root=nowhere",
        cwd=tmp_path, PYTHONPATH=paths,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "no verdict has chosen" in ran.stderr
    folder = tmp_path / "run" / "export" / "deploy"
    assert ran.document["folder"] == str(folder)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(
        ran.document["files"]
    )


def test_another_system_replaces_the_first_and_the_same_is_written_once(cli, tmp_path):
    path = exported(tmp_path / "before" / "export")
    folder = tmp_path / "run" / "export" / "deploy"
    asked = ("export", f"artefact={path}", "run_dir=run")

    def call(*options):
        ran = cli(*asked, *options)
        assert ran.code == 0, ran.stderr
        return "unchanged, not run again" in ran.stderr

    assert not call("deploy=kserve", "deploy.storage_uri=gs://b/1")
    assert call("deploy=kserve", "deploy.storage_uri=gs://b/1")
    assert not call("deploy=kserve", "deploy.storage_uri=gs://b/2")
    assert (folder / kserve.MANIFEST).is_file()
    assert not call("deploy=triton")
    assert not (folder / kserve.MANIFEST).exists()
    (folder / "model_repository" / "digits" / "1" / "model.onnx").unlink()
    assert not call("deploy=triton")
    assert (folder / "model_repository" / "digits" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["artefact=m.onnx"], "Expected `deploy=kserve` or `deploy=triton`"),
        (["artefact=m.onnx", "deploy=triton"], "Expected an ONNX file at m.onnx"),
        (["artefact=m.onnx", "deploy=triton", "checkpoint=c.pt"], "Leave one out"),
        (["artefact=m.onnx", "deploy=triton", "bundle.write=true"], "Leave one out"),
        (["deploy=kserve"], "Expected a value for `deploy.storage_uri`"),
        (["deploy=kserve", "deploy.storage_uri=gs://b", "deploy.canary_percent=101"], "0 to 100"),
        (["deploy=triton", "deploy.name=My_Model"], "Expected `deploy.name`"),
        (["deploy=tritan"], "Did you mean `triton`"),
    ],
)
def test_the_command_line_says_what_is_wrong_before_anything_is_exported(cli, options, message):
    ran = cli("export", "run_dir=run", *options)
    assert ran.code in (1, 2)
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_export_is_deployed_as_it_is_made(cli, tmp_path):
    model = ImageClassifier(PlainCNN(10, 1, widths=(16, 24, 28)), [0.3], [0.4])
    save_weights({"state_dict": model.state_dict()}, tmp_path / "own.pt")
    ran = cli("export", "run_dir=run", "checkpoint=own.pt", "quantize=none", "deploy=triton")
    assert ran.code == 0, ran.stderr
    folder = tmp_path / "run" / "export" / "deploy" / "model_repository" / "digits"
    config = parsed((folder / "config.pbtxt").read_text())
    assert list(config.input[0].dims) == [8, 8, 1]
    assert (folder / "labels.txt").read_text().split() == list("0123456789")
    assert ran.document["deploy"]["artefact"].endswith("export/model.onnx")


def test_the_champion_is_deployed_out_of_the_registry(cli, home, register, promote):
    register()
    promote()
    ran = cli(
        "export", "artefact=champion", f"registry.folder={home.folder}",
        f"registry.model={home.model}", "deploy=triton", "run_dir=run",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.document["chosen_by_verdict"]
    assert ran.document["artefact_sha256"] == home.champion().artefact_sha256
