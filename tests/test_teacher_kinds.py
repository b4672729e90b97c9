"""Claims about every kind of teacher as a user runs it, on real digits, down to its labels."""

import io
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import BRIEF
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from distill.files import read_json
from distill.runtime import OnnxModel
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.soft_labels import SoftLabelStore

pytestmark = pytest.mark.slow

NAMES = tuple("0123456789")
QUICK = (
    "run_dir=run",
    "trainer.max_epochs=1",
    "teacher_training.trainer.max_epochs=1",
    "soft_labels.num_views=1",
    "soft_labels.precision=float32",
)


@pytest.fixture
def student(cli, tmp_path, data):
    """Train a student, see that it learnt from the store, and return the store's logits."""

    def train(*overrides, kind):
        ran = cli("train", "student", *QUICK, *overrides)
        assert ran.code == 0, ran.stderr
        assert "soft labels verified" in ran.stderr
        history = read_json(tmp_path / "run/train/student/history.json")
        assert all(np.isfinite(epoch["train/kd"]) and epoch["train/kd"] > 0 for epoch in history)
        facts = read_json(tmp_path / "run/train/teacher/teacher.json")
        store = SoftLabelStore(tmp_path / "run/soft_labels")
        assert (facts["kind"], facts["fingerprint"]) == (kind, store.teacher)
        assert store.classes == NAMES
        return store.logits(0, data.train.indices)

    return train


def assert_stored(found, expected):
    """Hold stored logits, float16, against what they should be, up to a constant per sample."""
    first, second = (x - logsumexp(x, axis=1, keepdims=True) for x in (found, expected))
    np.testing.assert_allclose(first, second, rtol=2e-3, atol=2e-2)


def predictions(path, logits):
    """Write logits of all digits, or of the first ones, as a CSV file."""
    rows = [",".join(("index", *NAMES))]
    rows += [f"{number},{','.join(map(str, row))}" for number, row in enumerate(logits)]
    path.write_text("\n".join(rows))


def test_a_student_learns_from_an_ensemble_that_the_run_has_trained(student, tmp_path, data):
    found = student(
        "teacher=ensemble", "teacher.weights=[3,1]", "views=none", kind="EnsembleTeacher"
    )
    probabilities = []
    for name, widths in (("first", (32, 64, 96, 96)), ("second", (48, 64, 96))):
        model = ImageClassifier(PlainCNN(10, 1, widths=widths), [0.0], [1.0])
        content = torch.load(tmp_path / f"run/train/teacher/{name}/best.pt", weights_only=True)
        model.load_state_dict(content["state_dict"])
        with torch.no_grad():
            logits = model.eval()(torch.from_numpy(data.train.inputs))
        probabilities.append(softmax(logits.double().numpy(), axis=1))
    assert_stored(found, np.log(np.average(probabilities, axis=0, weights=[3, 1])))
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.1


def test_a_student_learns_from_an_onnx_file_that_another_run_has_exported(finished, student, data):
    path = finished[0] / "export/model.onnx"  # named by its contract
    found = student("teacher=onnx", f"teacher.path={path}", "views=none", kind="OnnxTeacher")
    assert_stored(found, OnnxModel(path).predict(data.train.inputs))


def test_an_onnx_file_without_a_contract_is_mapped_by_the_names_that_are_given(
    finished, student, data
):
    path = finished[0] / "export/teacher.onnx"
    options = (f"teacher.path={path}", "teacher.classes=[1,0,2,3,4,5,6,7,9,8]")
    found = student("teacher=onnx", *options, "views=none", kind="MappedTeacher")
    assert_stored(found, OnnxModel(path).predict(data.train.inputs)[:, [1, 0, *range(2, 8), 9, 8]])


def test_a_student_learns_from_a_forest_that_is_fitted_in_the_run(student, cli, data):
    found = student(
        "teacher=sklearn",
        "teacher.estimator.n_estimators=9",
        "teacher.folds=0",
        "views=none",
        kind="SklearnTeacher",
    )
    flat = data.train.inputs.reshape(len(data.train), -1).astype(np.float32) / np.float32(255)
    forest = RandomForestClassifier(9, random_state=0).fit(flat, data.train.labels)
    assert_stored(found, np.log(np.maximum(forest.predict_proba(flat), 1e-12)))
    again = cli(
        "train", "student", *QUICK, "teacher=sklearn", "teacher.estimator.n_estimators=9",
        "teacher.folds=0", "views=none",
    )  # fmt: skip
    assert again.stderr.count("unchanged, not run again") == 3
    shifted = student(
        "teacher=sklearn",
        "teacher.estimator.n_estimators=3",
        "teacher.folds=0",
        "views=shift",
        kind="SklearnTeacher",
    )
    assert np.abs(shifted - found).max() > 1  # other trees, other images


def test_a_student_learns_from_what_predict_has_written(finished, student, cli, tmp_path, data):
    artefact = finished[0] / "export/model.onnx"
    pixels = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    encoded = []
    for image in pixels:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "png")
        encoded.append(content.getvalue())
    pq.write_table(pa.table({"image": encoded}), tmp_path / "images.parquet")
    ran = cli(
        "predict", f"artefact={artefact}", "input=images.parquet", "output=saved.parquet",
        "run_dir=predicted",
    )  # fmt: skip
    assert ran.document["num_predictions"] == 1797
    found = student(
        "teacher=predictions", "teacher.path=saved.parquet", "teacher.test_path=saved.parquet",
        "views=none", kind="PredictionsTeacher",
    )  # fmt: skip
    assert_stored(found, OnnxModel(artefact).predict(data.train.inputs))
    answers = OnnxModel(artefact).predict(data.test.inputs).argmax(axis=1)
    scores = read_json(tmp_path / "run/teacher.json")["test_at_best_epoch"]
    assert scores["accuracy"]["estimate"] == pytest.approx((answers == data.test.labels).mean())


def test_other_predictions_in_the_same_file_are_learnt_in_the_same_run(student, tmp_path, rng):
    train = partial(
        student, "teacher=predictions", "teacher.path=saved.csv", "views=none",
        kind="PredictionsTeacher",
    )  # fmt: skip
    for _ in range(2):
        logits = rng.normal(0, 3, (1797, 10))
        predictions(tmp_path / "saved.csv", logits)
        found = train()
        index = np.load(tmp_path / "run/soft_labels/indices.npy")
        assert_stored(found, logits[index])


@pytest.mark.parametrize(
    ("kept", "overrides", "message"),
    [
        (1797, ("views=shift",), "Expected `views=none mixing=none` for a teacher of saved"),
        (1797, ("views=none", "teacher.classes=[0,1]"), "answer for 2 classes but it answers for"),
        (1000, ("views=none",), "all 918 samples in saved.csv but {missing} are missing: index 10"),
    ],
)
def test_predictions_of_other_images_or_classes_are_refused(
    kept, overrides, message, cli, tmp_path, data
):
    predictions(tmp_path / "saved.csv", np.zeros((kept, 10)))
    ran = cli(
        "train", "student", *QUICK, "teacher=predictions", "teacher.path=saved.csv", *overrides
    )
    assert (ran.code, ran.stdout) == (1, "")
    assert message.format(missing=(data.train.indices >= kept).sum()) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_weights_of_more_classes_are_refused_before_training_unless_they_may_go(
    student, cli, tmp_path, data
):
    torch.manual_seed(0)
    model = ImageClassifier(PlainCNN(11, 1, widths=(32, 64, 96, 96)), [0.3], [0.4]).eval()
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    options = (
        "teacher.checkpoint=bare.pt", "teacher.classes=[10,9,8,7,6,5,4,3,2,1,0]", "views=none",
    )  # fmt: skip
    ran = cli("train", *QUICK, *options)
    assert (ran.code, ran.stdout) == (1, "")
    assert "data's 10 classes but it knows 1 more: `10`" in ran.stderr
    assert "──" not in ran.stderr  # no stage has begun
    found = student(*options, "teacher.drop_classes=true", kind="MappedTeacher")
    with torch.no_grad():
        assert_stored(found, model(torch.from_numpy(data.train.inputs)).numpy()[:, :0:-1])


@pytest.mark.parametrize("weights", ["[0,0]", "[1]", "[1,-1]", "[a,b]"])
def test_weights_of_an_ensemble_are_refused_before_its_members_are_trained(weights, cli):
    ran = cli("train", *QUICK, "teacher=ensemble", f"teacher.weights={weights}")
    assert (ran.code, ran.stdout) == (1, "")
    assert "Mend `teacher.weights`" in ran.stderr
    assert "──" not in ran.stderr


def test_a_verdict_about_a_teacher_is_inconclusive_until_it_has_answers_for_the_test_set(
    cli, tmp_path, rng, data
):
    predictions(tmp_path / "saved.csv", rng.normal(0, 3, (1797, 10)))
    first, *lines = (tmp_path / "saved.csv").read_text().splitlines()
    (tmp_path / "whole.csv").write_text("\n".join([first, *lines]))
    tested = {*map(str, data.test.indices)}
    others = [line for line in lines if line.partition(",")[0] not in tested]
    (tmp_path / "saved.csv").write_text("\n".join([first, *others]))
    command = (
        "pipeline", *QUICK, *BRIEF, "preflight=false", "quantize=none", "views=none",
        "teacher=predictions", "teacher.path=saved.csv",
    )  # fmt: skip
    ran = cli(*command)
    assert ran.code in (3, 4), ran.stderr
    checks = {check["name"]: check for check in ran.document["checks"]}
    assert checks["drop_vs_teacher"]["outcome"] == "inconclusive"
    assert checks["drop_vs_teacher"]["measured"] is None
    assert "teacher" not in ran.document["models"]
    assert "drop_vs_teacher" in (tmp_path / "run/junit.xml").read_text()
    assert (tmp_path / "run/report.html").is_file()
    ran = cli(*command, "teacher.test_path=whole.csv")
    checks = {check["name"]: check for check in ran.document["checks"]}
    assert checks["drop_vs_teacher"]["measured"] is not None
    assert ran.document["models"]["teacher"]["accuracy"] < 0.2  # they are noise


def test_a_file_that_is_missing_is_refused_before_a_member_beside_it_is_trained(cli):
    ran = cli(
        "train",
        *QUICK,
        "teacher=ensemble",
        "~teacher.members.second",
        "+teacher.members.saved._target_=distill.training.teachers.sources.predictions_teacher",
        "+teacher.members.saved._partial_=true",
        "+teacher.members.saved.path=absent.csv",
        "views=none",
    )
    assert ran.code == 1
    assert "absent.csv" in ran.stderr
    assert "──" not in ran.stderr


def test_a_member_of_an_ensemble_is_told_of_settings_that_it_has(cli, tmp_path):
    model = ImageClassifier(PlainCNN(11, 1, widths=(32, 64, 96, 96)), [0.3], [0.4])
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    first = "teacher.members.first"
    command = ("train", "teacher", *QUICK, "views=none", "teacher=ensemble")
    ran = cli(*command, f"{first}.checkpoint=absent.pt")
    assert f"a checkpoint at `{first}.checkpoint=absent.pt` but there is none" in ran.stderr
    command += (f"{first}.checkpoint=bare.pt",)
    ran = cli(*command)
    assert (ran.code, ran.stdout) == (1, "")
    assert f"by `{first}.classes=[...]`, and set `{first}.drop_classes=true`" in ran.stderr
    command += (f"{first}.classes=[0,1,2,3,4,5,6,7,8,9,10]",)
    ran = cli(*command)
    assert f"Set `{first}.drop_classes=true`" in ran.stderr
    command += (f"{first}.drop_classes=true",)
    ran = cli(*command, f"{first}.mean=[0.5]")
    assert f"Expected `{first}.mean` and `{first}.std`" in ran.stderr
    ran = cli(*command, f"{first}.mean=[0.5]", f"{first}.std=[0.5]")
    assert ran.code == 0, ran.stderr
