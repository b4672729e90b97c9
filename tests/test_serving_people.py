"""`/predict` and `/feedback`: what people send, what they are told, what is kept."""

import io
import json
import threading

import numpy as np
import pytest
from PIL import Image
from served import CITIES, ROW, make_echo, make_service, make_table, running, table_task

from distill.contract import ImageInput
from distill.decode import ImageFormat, decode_image
from distill.production.serving import people
from distill.production.serving.documents import LARGE_BODY, read_document
from distill.production.serving.log import MemoryLog
from distill.production.serving.pictures import read_picture
from distill.production.serving.refusals import RefusedError
from distill.runtime import OnnxModel
from distill.tasks import TaskKind

JSON = {"Content-Type": "application/json"}


def picture(rng, size=(5, 4), kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def softmax(logits):
    powers = np.exp(np.float64(logits) - np.max(logits))
    return powers / powers.sum()


def encoded(row):
    """What the table's model sums up, by hand."""
    days = {"1970-01-02": 1.0, None: np.iinfo(np.int64).min / 86_400_000}
    member = 0.0 if row["member"] is None else float(row["member"])
    return row["age"] + member + CITIES.get(row["city"], 0.0) + days[row["since"]]


@pytest.fixture(scope="module")
def log():
    return MemoryLog()


@pytest.fixture(scope="module")
def client(pets, log):
    with running(make_service(pets, log=log)) as client:
        yield client


@pytest.fixture(scope="module")
def table_log():
    return MemoryLog()


@pytest.fixture(scope="module")
def table_client(people_table, table_log):
    with running(make_service(people_table, log=table_log)) as client:
        yield client


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_picture_gets_the_models_label_with_its_probability(client, pets, log, rng, kind):
    data = picture(rng, kind=kind)
    pixels = decode_image(data, ImageFormat(height=2, width=2, channels=1))
    logits = OnnxModel(pets / "model.onnx").predict(pixels[None])[0]
    probabilities = softmax(logits)
    sent = client.post("/predict", content=data, headers={"Content-Type": f"image/{kind.lower()}"})
    form = client.post("/predict", files={"file": data}, data={"unit": "ann"})
    for answer in (sent, form):
        said = answer.json()
        assert said["label"] == ("cat", "dog", "owl")[logits.argmax()]
        assert said["confidence"] == pytest.approx(probabilities.max(), rel=1e-5)
        expected = dict(zip(("cat", "dog", "owl"), probabilities, strict=True))
        assert said["probabilities"] == pytest.approx(expected, rel=1e-5)
        assert said["model"] == "pets"
        assert said["version"] is None
    kept = log.find(form.json()["prediction_id"])
    assert kept.unit == "ann"
    assert kept.label == logits.argmax()
    assert kept.confidence == pytest.approx(probabilities.max(), rel=1e-5)
    np.testing.assert_array_equal(np.load(io.BytesIO(kept.input)), pixels)
    np.testing.assert_allclose(np.frombuffer(kept.output, "<f4"), logits, rtol=1e-6)


def test_who_is_asking_is_kept_from_the_header(client, log, rng):
    said = client.post("/predict", content=picture(rng), headers={"X-Unit": "b7"}).json()
    assert log.find(said["prediction_id"]).unit == "b7"
    long = client.post("/predict", content=picture(rng), headers={"X-Unit": "b" * 300})
    assert long.status_code == 400


def bomb(width, height):
    """A PNG that claims a size and holds next to nothing."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_is_no_picture_is_refused_and_nothing_is_lost(client, rng):
    whole = picture(rng, (40, 40))
    bad = {
        b"": 400,
        b"GIF89a": 400,
        b"%!PS-Adobe-3.0 EPSF-3.0\n": 400,
        whole[:60]: 400,
        whole[: len(whole) // 2]: 400,
        whole[:40] + b"\xff" * 30 + whole[70:]: 400,
        bomb(20_000, 20_000): 413,
    }
    for data, status in bad.items():
        answer = client.post("/predict", content=data)
        assert answer.status_code == status, (data[:20], answer.text)
        assert set(answer.json()) == {"error"}
    assert client.post("/predict", content=whole).status_code == 200


def test_a_sliver_is_not_stretched_to_cover_a_square():
    takes = ImageInput(name="image", height=224, width=224, channels=3)
    with pytest.raises(RefusedError, match="1 x 60,000") as refused:  # it would be 3 gigapixels
        read_picture(bomb(1, 60_000), takes)
    assert refused.value.status == 413
    assert read_picture(bomb(1, 500), takes).pixels.shape == (1, 224, 224, 3)


def test_what_was_done_to_a_picture_is_said_and_counted(pets, rng):
    with running(make_service(pets)) as client:
        odd = client.post("/predict", content=picture(rng, (100, 90, 3))).json()
        as_it_is = client.post("/predict", content=picture(rng, (2, 2))).json()
        status = client.get("/status").json()
    assert odd["adapted"] == {"resized": "from 90 x 100 to 2 x 2", "greyed": "from RGB"}
    assert "adapted" not in as_it_is
    assert status["adapted"] == {"resized": 1, "greyed": 1}
    assert status["skew"] == []  # training brings its pictures to the model's format, too


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"--x\r\n", "multipart/form-data"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc\r\n--x--\r\n",
         "multipart/form-data; boundary=x"),
        (b'{"row": {"age": 1}}', "application/json"),
        (b"\xff" * 100, "multipart/form-data; boundary=\xff"),
    ],
)  # fmt: skip
def test_forms_without_a_file_are_400(client, content, kind):
    answer = client.post(
        "/predict", content=content, headers={b"Content-Type": kind.encode("latin-1")}
    )
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}


def test_two_files_at_once_are_400(client, rng):
    files = [("file", picture(rng)), ("other", picture(rng))]
    assert client.post("/predict", files=files).status_code == 400


def test_a_row_gets_the_models_label(table_client, table_log):
    said = table_client.post("/predict", json={"row": ROW, "unit": "u1"}).json()
    logits = np.array([-0.01, 0.01]) * encoded(ROW)
    assert said["label"] == "yes"
    assert said["confidence"] == pytest.approx(softmax(logits)[1], rel=1e-5)
    kept = table_log.find(said["prediction_id"])
    assert kept.unit == "u1"
    assert json.loads(kept.input) == {
        "age": [40.0], "member": [1.0], "city": ["Oslo"], "since": [86_400_000],
    }  # fmt: skip


def test_several_rows_get_an_answer_each_gaps_and_unseen_texts_included(table_client):
    rows = [ROW, ROW | {"age": -50, "member": None}, ROW | {"city": "Atlantis"}]
    said = table_client.post("/predict", json={"rows": rows}).json()
    assert [p["label"] for p in said["predictions"]] == ["yes", "no", "yes"]
    for row, prediction in zip(rows, said["predictions"], strict=True):
        expected = softmax(np.array([-0.01, 0.01]) * encoded(row)).max()
        assert prediction["confidence"] == pytest.approx(expected, rel=1e-5)
    ids = {prediction["prediction_id"] for prediction in said["predictions"]}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-01T00:00:01.5", 1500),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59Z", -1000),
        (1234, 1234),
        (None, np.iinfo(np.int64).min),
    ],
)
def test_dates_are_read_as_utc(table_client, table_log, written, milliseconds):
    said = table_client.post("/predict", json={"row": ROW | {"since": written}})
    kept = table_log.find(said.json()["prediction_id"])
    assert json.loads(kept.input)["since"] == [milliseconds]


BAD_ROWS = {
    "missing": {k: v for k, v in ROW.items() if k != "age"},
    "unknown": ROW | {"agge": 1},
    "number as text": ROW | {"age": "40"},
    "number as flag": ROW | {"age": True},
    "number as list": ROW | {"age": [40]},
    "flag as number": ROW | {"member": 2},
    "flag as text": ROW | {"member": "yes"},
    "text as list": ROW | {"city": ["Oslo"]},
    "date as text": ROW | {"since": "yesterday"},
    "date as fraction": ROW | {"since": 1.5},
    "date out of reach": ROW | {"since": 2**63},
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_do_not_fit_are_400_and_counted(table_client, name):
    answer = table_client.post("/predict", json={"rows": [ROW, BAD_ROWS[name]]})
    assert answer.status_code == 400
    assert "row 1" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [{}, [], {"row": ROW, "rows": [ROW]}, {"row": [ROW]}, {"rows": ROW}, {"rows": []},
     {"rows": [ROW] * 1001}, {"rows": [1]}, {"row": ROW, "units": "u"}, {"row": ROW, "unit": 7},
     {"row": None}, ROW],
)  # fmt: skip
def test_other_documents_are_400(table_client, body):
    answer = table_client.post("/predict", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_a_large_body_is_read_in_a_thread_and_a_small_one_at_once(table_client, path, monkeypatch):
    readers = []

    def read(body, what="the body"):
        readers.append(threading.current_thread())
        return read_document(body, what)

    monkeypatch.setattr(people, "read_document", read)
    for more in ("", " " * LARGE_BODY):
        assert table_client.post(path, content="{}" + more, headers=JSON).status_code == 400
    at_once, aside = readers
    assert at_once is not aside


def test_a_label_that_is_none_is_no_skew_and_says_what_it_should_be(pets, rng):
    with running(make_service(pets)) as client:
        said = client.post("/predict", content=picture(rng, (2, 2))).json()
        for label, found in (("owll", "'owll'"), (5, "but got 5")):
            told = {"prediction_id": said["prediction_id"], "label": label}
            answer = client.post("/feedback", json=told)
            assert answer.status_code == 400
            assert found in answer.json()["error"]
        status = client.get("/status").json()
    assert status["skew"] == []
    assert status["errors"] == {"input": 2}


def test_what_is_unlike_training_is_counted_by_column(people_table):
    service = make_service(people_table)
    with running(service) as client:
        rows = [ROW | {"city": "Atlantis"}, ROW | {"member": None}, ROW]
        assert client.post("/predict", json={"rows": rows}).status_code == 200
        client.post("/predict", json={"row": BAD_ROWS["missing"]})
        client.post("/predict", json={"row": BAD_ROWS["unknown"]})
        client.post("/predict", json={"row": BAD_ROWS["number as text"]})
        status = client.get("/status").json()
        metrics = client.get("/metrics").text
    counted = {(own["kind"], own["column"]): own["count"] for own in status["skew"]}
    assert counted == {("category", "city"): 1, ("gap", "member"): 1}  # of what was answered
    assert 'distill_refused_inputs_total{column="age",kind="missing"} 1.0' in metrics
    assert 'distill_refused_inputs_total{column="age",kind="dtype"} 1.0' in metrics
    assert 'distill_skew_total{column="city",kind="category",model="pets"} 1.0' in metrics
    assert status["errors"] == {"input": 3}


def test_numbers_are_given_by_name_and_quantiles_in_order(tmp_path):
    two = make_table(tmp_path / "two", table_task(TaskKind.REGRESSION))
    with running(make_service(two)) as client:
        said = client.post("/predict", json={"row": ROW}).json()
        total = encoded(ROW)
        expected = {"price": -0.01 * total, "rent": 0.01 * total}
        assert said["prediction"] == pytest.approx(expected, rel=1e-5)
        assert "label" not in said
    levels = (0.1, 0.5, 0.9)
    quantiles = make_table(tmp_path / "q", table_task(TaskKind.REGRESSION, levels))
    with running(make_service(quantiles)) as client:
        said = client.post("/predict", json={"row": ROW | {"age": -100}}).json()
        edges = 0.01 * abs(encoded(ROW | {"age": -100}))  # the model answers them the other way
        assert said["prediction"] == pytest.approx({"price": 0.0}, abs=1e-9)
        expected = {"0.1": -edges, "0.5": 0.0, "0.9": edges}
        assert said["quantiles"]["price"] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_several_labels_are_those_above_even_odds(tmp_path):
    folder = make_table(tmp_path, table_task(TaskKind.MULTI_LABEL))
    with running(make_service(folder)) as client:
        said = client.post("/predict", json={"row": ROW}).json()
        assert said["labels"] == ["yes"]
        expected = 1 / (1 + np.exp(-0.01 * encoded(ROW)))
        assert said["probabilities"]["yes"] == pytest.approx(expected, rel=1e-5)


def test_a_bare_file_offers_infer_alone(tmp_path):
    with running(make_service(make_echo(tmp_path / "echo.onnx", ("FP32",)))) as client:
        answer = client.post("/predict", content=b"x")
        assert answer.status_code == 404
        assert "/v2/models/pets/infer" in answer.json()["error"]


@pytest.fixture
def predicted(client, rng):
    return client.post("/predict", content=picture(rng)).json()["prediction_id"]


def test_the_truth_is_kept_once(client, log, predicted):
    first = client.post("/feedback", json={"prediction_id": predicted, "label": "owl"})
    assert first.json() == {"prediction_id": predicted, "kept": 1, "known_before": False}
    again = client.post("/feedback", json={"prediction_id": predicted, "label": "owl"})
    assert again.status_code == 200
    assert again.json()["known_before"]
    other = client.post("/feedback", json={"prediction_id": predicted, "label": "cat"})
    assert other.status_code == 409
    assert log.truths[predicted]["label"].label == 2


def test_outcomes_are_numbers_by_name(client, log, predicted):
    body = {"prediction_id": predicted, "outcome": {"click": 1, "revenue": 12.5}, "source": "shop"}
    assert client.post("/feedback", json=body).json()["kept"] == 2
    kept = log.truths[predicted]
    assert {name: own.value for name, own in kept.items()} == {"click": 1.0, "revenue": 12.5}
    assert kept["click"].source == "shop"


@pytest.mark.parametrize(
    "news",
    [{}, {"label": None}, {"label": "bird"}, {"label": 2}, {"label": ["owl"]}, {"outcome": {}},
     {"outcome": [1]}, {"outcome": {"click": "1"}}, {"outcome": {"click": True}},
     {"outcome": {"label": 1}}, {"outcome": {"": 1}},
     {"outcome": {"truth.0": 1}}, {"outcome": {"a b": 1}}, {"outcome": {"a" * 300: 1}},
     {"label": "owl", "labels": 1}, {"label": "owl", "source": 5},
     {"outcome": {f"o{i}": 1 for i in range(21)}}],
)  # fmt: skip
def test_a_truth_that_cannot_be_is_400(client, log, predicted, news):
    answer = client.post("/feedback", json={"prediction_id": predicted, **news})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert predicted not in log.truths


@pytest.mark.parametrize("unknown", ["0" * 30, "", "nope", "../../etc/passwd", "f" * 256, "é"])
def test_unknown_predictions_are_404(client, unknown):
    answer = client.post("/feedback", json={"prediction_id": unknown, "label": "owl"})
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("body", [{"label": "owl"}, {"prediction_id": 7}, {"prediction_id": None}])
def test_feedback_about_nothing_is_400(client, body):
    assert client.post("/feedback", json=body).status_code == 400


@pytest.mark.slow
def test_truths_of_other_tasks_are_of_their_kind(tmp_path):
    log = MemoryLog()
    folder = make_table(tmp_path / "n", table_task(TaskKind.REGRESSION))
    with running(make_service(folder, log=log)) as client:
        one = client.post("/predict", json={"row": ROW}).json()["prediction_id"]
        bad = client.post("/feedback", json={"prediction_id": one, "label": "yes"})
        assert bad.status_code == 400
        body = {"prediction_id": one, "label": {"price": 3}}
        assert client.post("/feedback", json=body).json()["kept"] == 1
    assert log.truths[one]["truth.0"].value == 3.0
    folder = make_table(tmp_path / "m", table_task(TaskKind.MULTI_LABEL))
    with running(make_service(folder, log=log)) as client:
        one = client.post("/predict", json={"row": ROW}).json()["prediction_id"]
        body = {"prediction_id": one, "label": ["no"]}
        assert client.post("/feedback", json=body).json()["kept"] == 2
    values = {name: own.value for name, own in log.truths[one].items()}
    assert values == {"truth.0": 1.0, "truth.1": 0.0}
