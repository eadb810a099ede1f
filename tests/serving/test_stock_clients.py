"""Triton's own clients, unchanged, against the application."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.utils import InferenceServerException

from in_process import LIMITS, SERVED, listening
from kovar.serving.answering import Answering
from kovar.serving.api import create_api
from kovar.serving.rpc import InferenceService
from kovar.serving.served_model import ModelTable, served_model

MODEL = "movie-sentiment"


@pytest.fixture
def client(runner, runtime) -> Iterator[triton_http.InferenceServerClient]:
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    with (
        listening(app) as (host, port),
        triton_http.InferenceServerClient(f"{host}:{port}") as client,
    ):
        yield client


def texts(kind: Any, *words: str) -> Any:
    tensor = kind.InferInput("text", [len(words)], "BYTES")
    tensor.set_data_from_numpy(np.array([word.encode() for word in words], dtype=object))
    return tensor


def test_the_http_client_finds_server_and_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL, "3")
    assert not client.is_model_ready(MODEL, "4")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata(MODEL)["versions"] == ["3"]
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary", [True, False])
def test_the_http_client_sends_texts_and_reads_labels_and_scores(client, binary):
    tensor = triton_http.InferInput("text", [2, 1], "BYTES")
    column = np.array([["good film"], ["bäd film"]], dtype=object)
    tensor.set_data_from_numpy(column, binary_data=binary)
    outputs = [
        triton_http.InferRequestedOutput(name, binary_data=binary) for name in ("label", "scores")
    ]
    answer = client.infer(MODEL, [tensor], outputs=outputs, request_id="call-1")
    labels = [label.decode() if binary else label for label in answer.as_numpy("label")]
    assert labels == ["positive", "negative"]
    np.testing.assert_allclose(answer.as_numpy("scores"), [[0.25, 0.75], [0.75, 0.25]])
    assert answer.get_response()["id"] == "call-1"


def test_the_http_client_gets_all_outputs_as_bytes_when_it_names_none(client):
    answer = client.infer(MODEL, [texts(triton_http, "good")], timeout=2_000_000)
    assert answer.get_output("scores")["parameters"] == {"binary_data_size": 8}
    assert answer.as_numpy("label").tolist() == [b"positive"]


def test_the_http_client_gets_the_best_classes(client):
    best = triton_http.InferRequestedOutput("scores", class_count=1)
    answer = client.infer(MODEL, [texts(triton_http, "good", "bad")], outputs=[best])
    assert answer.as_numpy("scores").tolist() == [
        [b"0.750000:1:positive"],
        [b"0.750000:0:negative"],
    ]


def test_the_http_client_shows_the_message_of_a_refusal(client):
    with pytest.raises(InferenceServerException, match="at most 100 are allowed"):
        client.infer(MODEL, [texts(triton_http, "x" * 101)])


class FakeContext:
    """What Serve hands to a replica beside the request."""

    def __init__(self, **metadata: str) -> None:
        self.metadata = metadata
        self.code: Any = None
        self.details = ""
        self.trailing: dict[str, str] = {}

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return list(self.metadata.items())

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str]]) -> None:
        self.trailing = dict(metadata)


class Service(InferenceService):
    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    @property
    def answering(self) -> Answering:
        return self._answering


@pytest.fixture
def call(runner, runtime):
    older = dataclasses.replace(SERVED, version=2, digest="cd" * 32)
    models = [served_model(served, runner, runtime) for served in (SERVED, older)]
    service = Service(Answering(ModelTable(models), LIMITS))

    def send(name: str, request: bytes, **metadata: str) -> tuple[Any, FakeContext]:
        context = FakeContext(**metadata)
        answer = asyncio.run(getattr(service, name)(request, context))
        response = getattr(service_pb2, f"{name}Response")
        return response.FromString(answer.SerializeToString()), context

    return send


def infer_request(
    *inputs: Any, outputs: Any = None, version: str = "", truncate: bool = True
) -> bytes:
    request = _get_inference_request(
        inputs=list(inputs),
        model_name=MODEL,
        model_version=version,
        request_id="call-1",
        outputs=outputs,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters={"truncate": truncate},
    )
    return request.SerializeToString()


def test_a_grpc_request_with_raw_contents_gets_raw_contents(call):
    response, context = call("ModelInfer", infer_request(texts(triton_grpc, "good", "bad")))
    answer = triton_grpc.InferResult(response)
    assert answer.as_numpy("label").tolist() == [b"positive", b"negative"]
    np.testing.assert_allclose(answer.as_numpy("scores"), [[0.25, 0.75], [0.75, 0.25]])
    assert (response.id, response.model_version) == ("call-1", "3")
    assert context.code is None
    assert context.trailing["x-kovar-digest"] == "ab" * 32


def test_a_grpc_request_with_typed_contents_gets_typed_contents(call):
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"good")
    response, _ = call("ModelInfer", request.SerializeToString())
    assert list(response.outputs[0].contents.bytes_contents) == [b"positive"]
    assert list(response.outputs[1].contents.fp32_contents) == [0.25, 0.75]
    assert not response.raw_output_contents


def test_grpc_metadata_names_inputs_and_outputs(call):
    request = service_pb2.ModelMetadataRequest(name=MODEL).SerializeToString()
    response, _ = call("ModelMetadata", request)
    assert [tensor.name for tensor in response.inputs] == ["text"]
    assert list(response.outputs[1].shape) == [-1, 2]
    assert call("ServerLive", b"")[0].live
    assert call("ServerReady", b"")[0].ready
    assert call("ServerMetadata", b"")[0].name == "kovar"
    assert call("RepositoryIndex", b"")[0].models[0].name == MODEL


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize(("text", "code"), [("good", None), (" ", "INVALID_ARGUMENT")])
def test_the_trailing_metadata_of_grpc_names_the_version_that_was_asked(call, version, text, code):
    request = infer_request(texts(triton_grpc, text), version=version)
    _, context = call("ModelInfer", request)
    assert (context.code and context.code.name) == code
    assert context.trailing["x-kovar-version"] == version
    assert context.trailing["x-kovar-digest"] == {"2": "cd", "3": "ab"}[version] * 32


def test_the_trailing_metadata_of_grpc_says_how_long_the_parts_took(call):
    _, context = call("ModelInfer", infer_request(texts(triton_grpc, "good")))
    assert context.trailing["server-timing"].startswith("queue;dur=")
    _, context = call("ModelInfer", infer_request(texts(triton_grpc, " ")))
    assert "server-timing" not in context.trailing


def test_the_trailing_metadata_of_grpc_says_when_to_ask_again(call, runner):
    runner.max_queued = 0
    _, context = call("ModelInfer", infer_request(texts(triton_grpc, "good")))
    assert (context.code.name, context.trailing["retry-after"]) == ("RESOURCE_EXHAUSTED", "1")


def test_a_grpc_refusal_says_what_to_do_next(call):
    request = infer_request(texts(triton_grpc, "good", "good " * 17), truncate=False)
    _, context = call("ModelInfer", request)
    assert context.details == (
        "inputs[0].data[1]: more than the 16 tokens that the model reads; "
        "send less of it, or allow truncation [too_many_tokens]"
    )


GRPC_REFUSALS = {
    "an unknown model": (
        "ModelReady",
        service_pb2.ModelReadyRequest(name="other").SerializeToString(),
        ("NOT_FOUND", "model_not_found"),
    ),
    "a long text": (
        "ModelInfer",
        infer_request(texts(triton_grpc, "x" * 101)),
        ("INVALID_ARGUMENT", "text_too_long"),
    ),
    "no message": ("ModelInfer", b"\xff\xff", ("INVALID_ARGUMENT", "invalid_message")),
    "a large message": ("ModelInfer", b" " * 2001, ("RESOURCE_EXHAUSTED", "body_too_large")),
}


@pytest.mark.parametrize("mistake", GRPC_REFUSALS)
def test_a_grpc_refusal_is_a_status_with_its_code(call, mistake):
    name, request, (status, code) = GRPC_REFUSALS[mistake]
    _, context = call(name, request, **{"x-request-id": "order-17"})
    assert context.code.name == status
    assert context.details.endswith(f"[{code}]")
    assert context.trailing["x-kovar-request-id"] == "order-17"
