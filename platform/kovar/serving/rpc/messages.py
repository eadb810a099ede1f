"""Messages of the Open Inference Protocol over gRPC, built from their fields.

They live in a descriptor pool of their own: a process that also holds a client's generated classes
of the same names (tritonclient, KServe) keeps both.

Sources:
    https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto,
    for the repository https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto

PACKAGE: Final = "inference"

# Each field as `name type number`; `*` marks a repeated one, `{}` a map from texts, `?` a choice.
_MESSAGES: Final[dict[str, str]] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool 1",
    "ModelReadyRequest": "name string 1; version string 2",
    "ModelReadyResponse": "ready bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string 1; version string 2; extensions *string 3",
    "ModelMetadataRequest": "name string 1; version string 2",
    "ModelMetadataResponse": "name string 1; versions *string 2; platform string 3; "
    "inputs *.ModelMetadataResponse.TensorMetadata 4; "
    "outputs *.ModelMetadataResponse.TensorMetadata 5",
    "ModelMetadataResponse.TensorMetadata": "name string 1; datatype string 2; shape *int64 3",
    "InferParameter": "bool_param ?bool 1; int64_param ?int64 2; string_param ?string 3; "
    "double_param ?double 4; uint64_param ?uint64 5",
    "InferTensorContents": "bool_contents *bool 1; int_contents *int32 2; "
    "int64_contents *int64 3; uint_contents *uint32 4; uint64_contents *uint64 5; "
    "fp32_contents *float 6; fp64_contents *double 7; bytes_contents *bytes 8",
    "ModelInferRequest": "model_name string 1; model_version string 2; id string 3; "
    "parameters {}.InferParameter 4; inputs *.ModelInferRequest.InferInputTensor 5; "
    "outputs *.ModelInferRequest.InferRequestedOutputTensor 6; raw_input_contents *bytes 7",
    "ModelInferRequest.InferInputTensor": "name string 1; datatype string 2; shape *int64 3; "
    "parameters {}.InferParameter 4; contents .InferTensorContents 5",
    "ModelInferRequest.InferRequestedOutputTensor": "name string 1; parameters {}.InferParameter 2",
    "ModelInferResponse": "model_name string 1; model_version string 2; id string 3; "
    "parameters {}.InferParameter 4; outputs *.ModelInferResponse.InferOutputTensor 5; "
    "raw_output_contents *bytes 6",
    "ModelInferResponse.InferOutputTensor": "name string 1; datatype string 2; shape *int64 3; "
    "parameters {}.InferParameter 4; contents .InferTensorContents 5",
    "RepositoryIndexRequest": "repository_name string 1; ready bool 2",
    "RepositoryIndexResponse": "models *.RepositoryIndexResponse.ModelIndex 1",
    "RepositoryIndexResponse.ModelIndex": "name string 1; version string 2; state string 3; "
    "reason string 4",
    "ModelRepositoryParameter": "bool_param ?bool 1; int64_param ?int64 2; "
    "string_param ?string 3; bytes_param ?bytes 4",
    "RepositoryModelLoadRequest": "repository_name string 1; model_name string 2; "
    "parameters {}.ModelRepositoryParameter 3",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name string 1; model_name string 2; "
    "parameters {}.ModelRepositoryParameter 3",
    "RepositoryModelUnloadResponse": "",
}


def _build() -> dict[str, type[Any]]:
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name="kovar/open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        made[name] = made[outer].nested_type.add() if outer else file.message_type.add()
        made[name].name = inner
        for field in filter(None, fields.split("; ")):
            _add_field(made[name], name, field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _add_field(message: DescriptorProto, path: str, written: str) -> None:
    name, kind, number = written.split()
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_OPTIONAL
    if kind.startswith(("*", "{}")):
        field.label = field.LABEL_REPEATED
    if kind.startswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.startswith("{}"):
        entry = f"{name.capitalize()}Entry"
        _add_entry(message, entry, kind.removeprefix("{}"))
        kind = f".{path}.{entry}"
    kind = kind.lstrip("*?")
    if kind.startswith("."):
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}{kind}"
    else:
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")


def _add_entry(message: DescriptorProto, name: str, kind: str) -> None:
    """Add what a map is on the wire: repeated pairs of a key and a value."""
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    _add_field(entry, name, "key string 1")
    _add_field(entry, name, f"value {kind} 2")


MESSAGES: Final = _build()
"""Message classes by their names in the protocol."""


def message(kind: str, /, **fields: Any) -> Any:
    """Make a message of the protocol."""
    return MESSAGES[kind](**fields)


def parse(name: str, content: bytes) -> Any:
    """Read a message of the protocol.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    return MESSAGES[name].FromString(content)
