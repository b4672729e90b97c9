"""What KServe and Triton accept of what is written for them: names, types and bounds, as facts.

Of InferenceService (serving.kserve.io/v1beta1, as of KServe 0.21) and of ModelConfig
(model_config.proto, as of Triton's client 2.73) the fields that are used here and no others, so
that a field that is misspelt, or has moved, is refused.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_COUNT = {"type": "integer", "minimum": 0}
_QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$"}


def _mapping(required, **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_RESOURCES = _mapping(["cpu", "memory"], cpu=_QUANTITY, memory=_QUANTITY)
_MODEL = _mapping(
    ["modelFormat", "storageUri"],
    modelFormat=_mapping(["name"], name={"type": "string"}, version={"type": "string"}),
    protocolVersion={"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
    runtime={"type": "string"},
    storageUri={"type": "string", "pattern": "^[a-z0-9]+://"},
    resources=_mapping([], requests=_RESOURCES, limits=_RESOURCES),
)
INFERENCE_SERVICE = _mapping(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"},
    metadata=_mapping(
        ["name"],
        name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 53},
        namespace={"type": "string"},
        annotations={
            "type": "object",
            "propertyNames": {"pattern": "^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61})$"},
            "additionalProperties": {"type": "string"},
        },
    ),
    spec=_mapping(
        ["predictor"],
        predictor=_mapping(
            ["model"],
            canaryTrafficPercent={"type": "integer", "minimum": 0, "maximum": 100},
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            model=_MODEL,
        ),
    ),
)

# Names in the order of their numbers, from 0.
DATA_TYPES = (
    "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "STRING", "BF16",
)  # fmt: skip
_ENUMS = {
    "DataType": [f"TYPE_{name}" for name in DATA_TYPES],
    "Format": ["FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"],
    "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"],
}
# Message to fields: name to number and type, "*" where there may be several.
_MESSAGES = {
    "Input": {
        "name": (1, "string"), "data_type": (2, "DataType"), "format": (3, "Format"),
        "dims": (4, "int64*"),
    },
    "Output": {
        "name": (1, "string"), "data_type": (2, "DataType"), "dims": (3, "int64*"),
        "label_filename": (4, "string"),
    },
    "Latest": {"num_versions": (1, "uint32")},
    "VersionPolicy": {"latest": (1, "Latest")},
    "InstanceGroup": {"count": (2, "int32"), "kind": (4, "Kind")},
    "DynamicBatching": {"max_queue_delay_microseconds": (2, "uint64")},
    "Parameter": {"string_value": (1, "string")},
    "ParameterEntry": {"key": (1, "string"), "value": (2, "Parameter")},
    "ModelConfig": {
        "name": (1, "string"), "backend": (17, "string"), "max_batch_size": (4, "int32"),
        "version_policy": (3, "VersionPolicy"), "input": (5, "Input*"), "output": (6, "Output*"),
        "instance_group": (7, "InstanceGroup*"), "dynamic_batching": (11, "DynamicBatching"),
        "parameters": (14, "ParameterEntry*"),
    },
}  # fmt: skip


def _model_config():
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config_facts.proto", package="facts", syntax="proto3"
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            own = message.field.add(name=field, number=number)
            several, kind = kind.endswith("*"), kind.rstrip("*")
            own.label = kinds.LABEL_REPEATED if several else kinds.LABEL_OPTIONAL
            if kind in _ENUMS or kind in _MESSAGES:
                own.type = kinds.TYPE_ENUM if kind in _ENUMS else kinds.TYPE_MESSAGE
                own.type_name = f".facts.{kind}"
            else:
                own.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("facts.ModelConfig"))


ModelConfig = _model_config()
