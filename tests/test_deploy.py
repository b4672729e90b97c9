"""Claims about layouts for other serving systems: their names, what is refused, the verb."""

import os

import pytest
from commands import run_cli, run_process
from deployable import exported, kserve_of, parsed

from distill.deployment.deploy import kserve
from distill.deployment.deploy.model import name_of, read_model
from distill.deployment.deploy.triton import Triton
from distill.errors import UsageError, UserError
from distill.files import sha256, write_json
from distill.training.fit import save_weights
from distill.training.models import ImageClassifier, PlainCNN
from distill.verbs.exporting.deploy import shipped


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


@pytest.mark.slow
def test_an_export_is_deployed_later_without_torch_and_without_its_data(tmp_path):
    path = exported(tmp_path / "before" / "export")
    (tmp_path / "torch.py").write_text("raise ImportError('nobody should need torch')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = run_process(
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


def test_what_to_do_next_is_said_and_stands_at_the_top_of_the_files(tmp_path):
    path = exported(tmp_path / "export")
    given = f"artefact={path}", "deploy=kserve", "deploy.storage_uri=gs://bucket/digits/3"
    ran = run_cli("export", *given, "run_dir=run", cwd=tmp_path)
    assert ran.code == 0, ran.stderr
    folder = tmp_path / "run" / "export" / "deploy"
    assert f"upload what is in {folder}/model_repository to gs://bucket/digits/3" in ran.stderr
    assert f"kubectl apply -f {folder}/{kserve.MANIFEST}" in ran.stderr
    assert "kubectl apply" in (folder / kserve.MANIFEST).read_text().split("apiVersion")[0]
    ran = run_cli("export", given[0], "deploy=triton", "run_dir=other", cwd=tmp_path)
    repository = tmp_path / "other/export/deploy/model_repository"
    assert f"tritonserver --model-repository={repository}" in ran.stderr
    (name,) = repository.iterdir()
    assert f"/v2/models/{name.name}/ready" in ran.stderr
