"""The service described as OpenAPI: what FastAPI cannot read off the routes that pass it by.

Plain dictionaries. Knows words of the protocol; knows nothing of models.
"""

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": True}
ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
_TENSOR: Schema = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": _TEXT,
        "datatype": {
            "type": "string",
            "enum": [
                "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
                "FP16", "FP32", "FP64", "BYTES",
            ],
        },
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": _PARAMETERS,
        "data": {"type": "array", "items": {}},
    },
}  # fmt: skip
INFERENCE_REQUEST: Schema = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": _TEXT, "parameters": _PARAMETERS},
            },
        },
    },
}
INFERENCE_RESPONSE: Schema = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
ROW: Schema = {"type": "object", "additionalProperties": True}
PREDICT_BODY: Schema = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"row": ROW, "rows": {"type": "array", "items": ROW}, "unit": _TEXT},
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}, "unit": _TEXT},
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
FEEDBACK_BODY: Schema = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["prediction_id"],
                "properties": {
                    "prediction_id": _TEXT,
                    "label": {},
                    "outcome": {"type": "object", "additionalProperties": {"type": "number"}},
                    "source": _TEXT,
                },
            }
        }
    },
}


def _json(schema: Schema, description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


ERRORS: dict[int | str, Schema] = {
    "4XX": _json(ERROR, "The request is wrong: what was expected, what was found, what to do."),
    "5XX": _json(ERROR, "Too many requests wait (503), or no answer in time (504)."),
}
_UNIT: Schema = {
    "name": "X-Unit",
    "in": "header",
    "required": False,
    "description": "Who is asking, for assignments that stick.",
    "schema": {"type": "string", "maxLength": 256},
}
UNIT_HEADER = [_UNIT]


def _path_parameters(path: str) -> list[Schema]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": n, "in": "path", "required": True, "schema": _TEXT} for n in names]


def read_operation(path: str, summary: str) -> Schema:
    """Describe a `GET` of the protocol."""
    return {
        "get": {
            "summary": summary,
            "operationId": f"get {path}",
            "parameters": _path_parameters(path),
            "responses": {"200": _json({"type": "object"}, summary), **ERRORS},
        }
    }


def infer_operation(path: str) -> Schema:
    """Describe `infer`."""
    return {
        "post": {
            "summary": "Ask the model: JSON, or the binary tensor extension",
            "operationId": f"post {path}",
            "parameters": [*_path_parameters(path), _UNIT],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": INFERENCE_REQUEST}},
            },
            "responses": {"200": _json(INFERENCE_RESPONSE, "The model's outputs"), **ERRORS},
        }
    }
