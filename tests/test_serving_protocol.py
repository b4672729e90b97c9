"""The Open Inference Protocol, spoken by hand over a socket to a running service."""

import json
import struct

import numpy as np
import pytest
from served import EVERY_TYPE, make_service, running

from distill.production.serving.documents import read_document
from distill.production.serving.refusals import RefusedError
from distill.runtime import OnnxModel

INFER = "/v2/models/pets/infer"
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def client(pets):
    with running(make_service(pets)) as client:
        yield client


@pytest.fixture(scope="module")
def echo_client(echo):
    with running(make_service(echo, max_rows=40_000)) as client:
        yield client


def binary(entries, parts, **further):
    """Lay out a request of the binary extension."""
    head = json.dumps({"inputs": entries, **further}).encode()
    headers = {
        "Inference-Header-Content-Length": str(len(head)),
        "Content-Type": "application/octet-stream",
    }
    return {"content": head + b"".join(parts), "headers": headers}


def test_metadata_names_server_and_model(client):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/pets/ready").json() == {"name": "pets", "ready": True}
    assert client.get("/v2/models/pets").json() == {
        "name": "pets",
        "versions": [],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 2, 2, 1]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
    }


@pytest.mark.parametrize("path", ["/v2/models/cats", "/v2/models/pets/versions/7"])
def test_unknown_models_and_versions_are_404(client, path):
    for answer in (
        client.get(path),
        client.get(f"{path}/ready"),
        client.post(f"{path}/infer", json={"inputs": [IMAGE]}),
    ):
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "data", [[1, 2, 3, 4], [[[[1], [2]], [[3], [4]]]], [[[1], [2]], [[3], [4]]]]
)
def test_json_flat_or_nested_is_answered_as_the_model_answers(client, pets, data):
    answer = client.post(INFER, json={"id": "a", "inputs": [IMAGE | {"data": data}]})
    if len(data) == 2:  # nested, but not as the shape says
        assert answer.status_code == 400
        return
    pixels = np.array([1, 2, 3, 4], np.uint8).reshape(1, 2, 2, 1)
    expected = OnnxModel(pets / "model.onnx").predict(pixels)
    said = answer.json()
    assert said["id"] == "a"
    assert said["model_name"] == "pets"
    assert "model_version" not in said  # a plain path has none
    (output,) = said["outputs"]
    assert {key: output[key] for key in ("name", "datatype", "shape")} == {
        "name": "logits", "datatype": "FP32", "shape": [1, 3],
    }  # fmt: skip
    np.testing.assert_allclose(output["data"], expected[0], rtol=1e-6)


def test_several_rows_have_a_prediction_each(client):
    entry = IMAGE | {"shape": [2, 2, 2, 1], "data": list(range(8))}
    said = client.post(INFER, json={"inputs": [entry]}).json()
    assert said["outputs"][0]["shape"] == [2, 3]
    assert len(set(said["parameters"]["prediction_ids"].split(","))) == 2


VALUES = {
    "BOOL": [True, False, True],
    "BYTES": ["", "Zürich", "a\0b"],
    **{t: [0, 1, np.iinfo(d).max] for t, (_, d) in EVERY_TYPE.items() if "INT" in t},
    **{t: [0.5, -2.0, 1024.0] for t in ("FP16", "FP32", "FP64")},
}


def written_by_hand(datatype):
    """Pack the values with `struct`, as the extension's text says."""
    if datatype == "BYTES":
        texts = [text.encode() for text in VALUES["BYTES"]]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    codes = {
        "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
        "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
    }  # fmt: skip
    return struct.pack(f"<3{codes[datatype]}", *VALUES[datatype])


def test_every_type_comes_back_as_json(echo_client):
    entries = [
        {"name": f"in_{t}", "datatype": t, "shape": [1, 3], "data": VALUES[t]} for t in EVERY_TYPE
    ]
    said = echo_client.post(INFER, json={"inputs": entries}).json()
    assert {o["name"]: o["data"] for o in said["outputs"]} == {
        f"out_{t}": VALUES[t] for t in EVERY_TYPE
    }


def test_every_type_comes_back_as_bytes(echo_client):
    parts = {t: written_by_hand(t) for t in EVERY_TYPE}
    entries = [
        {"name": f"in_{t}", "datatype": t, "shape": [1, 3],
         "parameters": {"binary_data_size": len(parts[t])}} for t in EVERY_TYPE
    ]  # fmt: skip
    request = binary(entries, parts.values(), parameters={"binary_data_output": True})
    answer = echo_client.post(INFER, **request)
    length = int(answer.headers["Inference-Header-Content-Length"])
    said = json.loads(answer.content[:length])
    at = length
    for output in said["outputs"]:
        size = output["parameters"]["binary_data_size"]
        datatype = output["datatype"]
        assert answer.content[at : at + size] == parts[datatype], datatype
        at += size
    assert at == len(answer.content)
    assert answer.headers["content-type"] == "application/octet-stream"


def test_each_output_says_for_itself_whether_it_is_binary(echo_client):
    entries = [
        {"name": f"in_{t}", "datatype": t, "shape": [1, 3], "data": VALUES[t]} for t in EVERY_TYPE
    ]
    outputs = [
        {"name": "out_INT8", "parameters": {"binary_data": False}},
        {"name": "out_FP32"},
    ]
    request = {"inputs": entries, "outputs": outputs, "parameters": {"binary_data_output": True}}
    answer = echo_client.post(INFER, json=request)
    length = int(answer.headers["Inference-Header-Content-Length"])
    first, second = json.loads(answer.content[:length])["outputs"]
    assert first["data"] == VALUES["INT8"]
    assert second["parameters"] == {"binary_data_size": 12}
    assert answer.content[length:] == written_by_hand("FP32")


BAD = {
    "no inputs": {},
    "inputs no list": {"inputs": {"image": [1]}},
    "inputs empty": {"inputs": []},
    "no name": {"inputs": [{"datatype": "UINT8", "shape": [1], "data": [1]}]},
    "twice": {"inputs": [IMAGE, IMAGE]},
    "unknown input": {"inputs": [IMAGE, IMAGE | {"name": "imagge"}]},
    "missing input": {"inputs": [IMAGE | {"name": "imagge"}]},
    "unknown type": {"inputs": [IMAGE | {"datatype": "FP8"}]},
    "type of a type": {"inputs": [IMAGE | {"datatype": ["UINT8"]}]},
    "other type": {"inputs": [IMAGE | {"datatype": "INT8"}]},
    "other rank": {"inputs": [IMAGE | {"shape": [4]}]},
    "other size": {"inputs": [IMAGE | {"shape": [1, 4, 1, 1]}]},
    "no shape": {"inputs": [{"name": "image", "datatype": "UINT8", "data": [1]}]},
    "shape of text": {"inputs": [IMAGE | {"shape": ["1", 2, 2, 1]}]},
    "negative": {"inputs": [IMAGE | {"shape": [-1, 2, 2, 1]}]},
    "no rows": {"inputs": [IMAGE | {"shape": [0, 2, 2, 1], "data": []}]},
    "giant shape": {"inputs": [IMAGE | {"shape": [2**62, 2, 2, 1]}]},
    "shape beyond 64 bits": {"inputs": [IMAGE | {"shape": [2**70, 2, 2, 1]}]},
    "too few": {"inputs": [IMAGE | {"data": [1, 2, 3]}]},
    "too many": {"inputs": [IMAGE | {"data": [1, 2, 3, 4, 5]}]},
    "too large": {"inputs": [IMAGE | {"data": [1, 2, 3, 256]}]},
    "too small": {"inputs": [IMAGE | {"data": [1, 2, 3, -1]}]},
    "a fraction": {"inputs": [IMAGE | {"data": [1, 2, 3, 0.5]}]},
    "a flag": {"inputs": [IMAGE | {"data": [1, 2, 3, True]}]},
    "null": {"inputs": [IMAGE | {"data": [1, 2, 3, None]}]},
    "text": {"inputs": [IMAGE | {"data": [1, 2, 3, "x" * 100_000]}]},
    "data no list": {"inputs": [IMAGE | {"data": "1234"}]},
    "no data": {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1]}]},
    "ragged": {"inputs": [IMAGE | {"data": [[[[1], [2]], [[3]]]]}]},
    "unknown output": {"inputs": [IMAGE], "outputs": [{"name": "logit"}]},
    "output twice": {"inputs": [IMAGE], "outputs": [{"name": "logits"}] * 2},
    "outputs no list": {"inputs": [IMAGE], "outputs": "logits"},
    "classification": {
        "inputs": [IMAGE],
        "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
    },
    "flag of text": {"inputs": [IMAGE], "parameters": {"binary_data_output": "yes"}},
    "parameters no object": {"inputs": [IMAGE], "parameters": [1]},
    "id no text": {"id": 7, "inputs": [IMAGE]},
    "bytes without any": {"inputs": [IMAGE | {"parameters": {"binary_data_size": 4}}]},
}


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_is_not_the_models_is_400_and_says_why(client, name):
    answer = client.post(INFER, json=BAD[name])
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert len(answer.json()["error"]) < 1000
    assert client.post(INFER, json={"inputs": [IMAGE]}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b'{"inputs": NaN}',
        b"[" * 100_000, b'{"inputs":' * 2000, b'{"a": 1e999}', b'{"inputs": ["\xff"]}',
        b'{"a": "\\ud800"}', b'{"a":' + b"9" * 10_000 + b"}",
        b'{"inputs": [], "inputs": []}', b'{"a": {"b": [{"c": 1, "c": 1}]}}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_400(client, body):
    answer = client.post(INFER, content=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}


def test_duplicate_keys_are_named_and_colons_in_texts_are_none(client):
    good = json.dumps({"id": "a:b::c", "inputs": [IMAGE]})
    assert client.post(INFER, content=good).json()["id"] == "a:b::c"
    answer = client.post(INFER, content=good.replace('"id"', '"id": "x", "id"'))
    assert answer.status_code == 400
    assert "`id` is there twice" in answer.json()["error"]


def test_a_doubled_key_among_very_many_is_found_without_counting_each():
    keys = "".join(f'"{i}": 0, ' for i in range(300_000))  # 300,000 ** 2 comparisons take hours
    with pytest.raises(RefusedError, match="`last` is there twice"):
        read_document(f'{{{keys}"last": 0, "last": 0}}'.encode())


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"99999", b"9" * 30, b"x", b"", b"5"])
def test_a_wrong_header_length_is_400(client, length):
    headers = {b"Inference-Header-Content-Length": length}
    answer = client.post(INFER, content=json.dumps({"inputs": [IMAGE]}), headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    ("size", "part"),
    [(4, b"123"), (4, b"12345"), (3, b"123"), (5, b"12345"), (-4, b"1234"), ("4", b"1234"),
     (2**70, b"1234"), (True, b"1")],
)  # fmt: skip
def test_bytes_that_do_not_fit_are_400(client, size, part):
    entry = {k: v for k, v in IMAGE.items() if k != "data"}
    entry["parameters"] = {"binary_data_size": size}
    answer = client.post(INFER, **binary([entry], [part]))
    assert answer.status_code == 400, answer.text
    entry["parameters"] = {"binary_data_size": 4}
    assert client.post(INFER, **binary([entry], [b"\1\2\3\4"])).status_code == 200


@pytest.mark.parametrize(
    "part",
    [b"", b"\1\0", b"\2\0\0\0a", b"\xff\xff\xff\xff", b"\1\0\0\0\xff" * 3, b"\0\0\0\0" * 2,
     b"\0\0\0\0" * 4],
)  # fmt: skip
def test_texts_that_do_not_fit_are_400(echo_client, part):
    entries = [
        {"name": f"in_{t}", "datatype": t, "shape": [1, 3], "data": VALUES[t]}
        for t in EVERY_TYPE
        if t != "BYTES"
    ]
    text = {"name": "in_BYTES", "datatype": "BYTES", "shape": [1, 3]}
    text["parameters"] = {"binary_data_size": len(part)}
    answer = echo_client.post(INFER, **binary([*entries, text], [part]))
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_numbers_that_are_none_are_400(echo_client, datatype, value):
    given = {t: written_by_hand(t) for t in EVERY_TYPE}
    given[datatype] = np.array([1, value, 2], EVERY_TYPE[datatype][1]).tobytes()
    entries = [
        {"name": f"in_{t}", "datatype": t, "shape": [1, 3],
         "parameters": {"binary_data_size": len(given[t])}} for t in EVERY_TYPE
    ]  # fmt: skip
    answer = echo_client.post(INFER, **binary(entries, given.values()))
    assert answer.status_code == 400
    assert "finite" in answer.json()["error"]


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 1e6), ("FP32", 1e300)])
def test_numbers_that_are_too_large_for_their_type_are_400(echo_client, datatype, value):
    entries = [
        {"name": f"in_{t}", "datatype": t, "shape": [1, 3], "data": VALUES[t]} for t in EVERY_TYPE
    ]
    next(e for e in entries if e["datatype"] == datatype)["data"] = [0, value, 0]
    answer = echo_client.post(INFER, json={"inputs": entries})
    assert answer.status_code == 400
    assert "finite" in answer.json()["error"]


@pytest.mark.slow
def test_one_long_text_among_many_short_ones_takes_no_more_memory_than_the_body(echo_client):
    # NumPy's own text type would give each of the 100,000 elements the length of the longest.
    many = 33_333
    entries = []
    for t in EVERY_TYPE:
        values = ["a"] * (3 * many) if t == "BYTES" else [VALUES[t][0]] * (3 * many)
        entries.append({"name": f"in_{t}", "datatype": t, "shape": [many, 3], "data": values})
    entries[-1]["data"][0] = "b" * 1_000_000
    wanted = [{"name": "out_BOOL"}]
    answer = echo_client.post(INFER, json={"inputs": entries, "outputs": wanted})
    assert answer.status_code == 200, answer.text[:300]
    entries[-2]["data"] = entries[-1]["data"]
    answer = echo_client.post(INFER, json={"inputs": entries, "outputs": wanted})
    assert answer.status_code == 400


def test_a_number_beyond_its_type_is_told_with_the_types_bounds(client):
    body = {"inputs": [IMAGE | {"data": [1, 2, 300, 4]}]}
    answer = client.post(INFER, json=body)
    assert answer.status_code == 400
    assert "UINT8 in `data` of the input `image`, 0 to 255, but found 300" in answer.json()["error"]
