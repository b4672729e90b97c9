"""Whatever comes in, a 4xx in the protocol's form goes out, never a 500, never a lost worker."""

import io
import json

import hypothesis
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance
from served import ROW, make_service, running

BOUNDED = hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
NAMES = st.sampled_from(["image", "Image", "", "age", "\0"])
DATATYPES = st.sampled_from(["UINT8", "INT8", "FP32", "BYTES", "FP8", "uint8", None, 7])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner,
    max_size=3),
    max_leaves=12,
)  # fmt: skip
SHAPES = st.lists(st.sampled_from([1, 2, 0, -1, 4, 2**31, 2**63, 1.5, "1", None]), max_size=6)
ENTRIES = st.fixed_dictionaries(
    {"name": NAMES | VALUES, "datatype": DATATYPES | VALUES, "shape": SHAPES | VALUES},
    optional={
        "data": st.lists(st.integers(-1, 256), max_size=9) | VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "x"]), st.integers(-1, 9) | VALUES, max_size=2
        )
        | VALUES,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(ENTRIES, max_size=3) | VALUES},
    optional={
        "id": VALUES,
        "outputs": st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2) | VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_output", "unit"]), VALUES, max_size=2
        )
        | VALUES,
    },
)


@pytest.fixture(scope="module")
def client(pets):
    with running(make_service(pets, admin_token="token")) as client:
        yield client


@pytest.fixture(scope="module")
def table_client(people_table):
    with running(make_service(people_table)) as client:
        yield client


def check(answer):
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error"}
        assert len(answer.content) < 5_000
    return answer.status_code


@given(data=st.data())
@BOUNDED
def test_all_that_the_description_allows_and_more_is_answered_as_described(client, data):
    document = client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    operation = data.draw(st.sampled_from(operations))
    mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
    case = data.draw(operation.as_strategy(generation_mode=mode))
    answer = case.call(base_url=str(client.base_url), timeout=60)
    case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])


@given(request=REQUESTS)
@BOUNDED
def test_no_request_of_about_the_right_form_breaks_infer(client, request):
    check(client.post("/v2/models/pets/infer", content=json.dumps(request)))


@given(head=st.binary(max_size=60) | REQUESTS.map(lambda r: json.dumps(r).encode()),
       tail=st.binary(max_size=20), length=st.integers(-2, 200))  # fmt: skip
@BOUNDED
def test_no_bytes_break_the_binary_extension(client, head, tail, length):
    headers = {"Inference-Header-Content-Length": str(length)}
    check(client.post("/v2/models/pets/infer", content=head + tail, headers=headers))
    headers = {"Inference-Header-Content-Length": str(len(head))}
    check(client.post("/v2/models/pets/infer", content=head + tail, headers=headers))


@given(row=st.dictionaries(st.sampled_from([*ROW, "x"]), VALUES, max_size=5))
@BOUNDED
def test_no_row_breaks_predict(table_client, row):
    check(table_client.post("/predict", content=json.dumps({"row": row})))
    check(table_client.post("/predict", content=json.dumps({"rows": [ROW | row, ROW]})))


FIELDS = st.sampled_from(["prediction_id", "label", "outcome", "source", "x"])


@given(body=st.dictionaries(FIELDS, VALUES, max_size=4))
@BOUNDED
def test_no_feedback_breaks(client, body):
    prediction = client.post("/predict", content=b"no picture")
    assert prediction.status_code == 400
    check(client.post("/feedback", content=json.dumps(body)))


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 10_000))
@BOUNDED
def test_no_damaged_picture_breaks_predict(client, pictures, place, byte, cut):
    for whole in pictures:
        damaged = bytearray(whole)
        damaged[place % len(whole)] = byte
        check(client.post("/predict", content=bytes(damaged)))
        check(client.post("/predict", content=bytes(damaged[: cut % len(whole)])))


@pytest.fixture(scope="module")
def pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


@pytest.fixture(scope="module", autouse=True)
def the_worker_is_still_there(client):
    yield
    entry = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}
    assert client.post("/v2/models/pets/infer", json={"inputs": [entry]}).status_code == 200
    errors = client.get("/status").json()["errors"]
    assert errors.keys() <= {"malformed", "input", "unknown", "forbidden", "model"}
