"""The application on a real local Ray Serve, asked over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from kovar.registry import Version, read_golden
from kovar.serving import build
from kovar.serving.environment import GRPC_MESSAGE_BYTES
from tiny_version import (
    TEXTS,
    build_tiny_version,
    environment_of,
    register_tiny_version,
    settings_in,
)

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def url(ray_session, grpc_port) -> Iterator[str]:
    from ray import serve

    port = free_port()
    serve.start(
        http_options={"host": "127.0.0.1", "port": port},
        grpc_options={
            "port": grpc_port,
            "grpc_servicer_functions": ["kovar.serving.rpc.add_service"],
        },
    )
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def version(url, folder) -> Iterator[Version]:
    from ray import serve

    settings = settings_in(folder)
    version = register_tiny_version(settings, build_tiny_version(folder / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(settings).items():
            patch.setenv(name, value)
        application = build({"model": "tiny", "replica": {"kind": "cpu", "cpus": 0.5}})
    serve.run(application, name="tiny", route_prefix="/")
    yield version
    serve.delete("tiny")


def test_answers_are_those_of_the_registered_version(url, version, folder):
    response = httpx.post(f"{url}/v1/predict", json={"inputs": list(TEXTS)})
    assert response.status_code == 200
    body = response.json()
    assert body["digest"] == version.digest
    examples = read_golden(folder / "tiny").examples
    for example, answer in zip(examples, body["predictions"], strict=True):
        assert answer["scores"] == pytest.approx(example.scores, abs=1e-3)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/predict", {"inputs": ["fine"]}, 200),
        ("/v1/predict", {"inputs": []}, 422),
        ("/v1/predict", {"inputs": ["x" * 1_000_000]}, 422),
        ("/v1/predict", {"inputs": ["x" * 5_000_000]}, 413),
        ("/v2/models/other/infer", {}, 404),
        ("/nowhere", {}, 404),
    ],
)
def test_every_response_names_the_version_by_its_digest(url, version, path, body, status):
    response = httpx.post(f"{url}{path}", json=body)
    assert response.status_code == status
    assert response.headers["x-kovar-model"] == "tiny"
    assert response.headers["x-kovar-version"] == str(version.number)
    assert response.headers["x-kovar-digest"] == version.digest
    assert response.headers["x-kovar-request-id"]


def test_the_open_inference_protocol_answers_over_http(url, version):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["fine"]}
    response = httpx.post(f"{url}/v2/models/tiny/infer", json={"inputs": [tensor]})
    assert [output["name"] for output in response.json()["outputs"]] == ["label", "scores"]
    assert httpx.get(f"{url}/v2/health/ready").json() == {"ready": True}


def test_many_clients_at_once_all_get_their_answers(url, version):
    def ask(client: httpx.Client, number: int) -> int:
        return client.post("/v1/predict", json={"inputs": [f"film {number}"]}).status_code

    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda number: ask(client, number), range(64)))
    assert statuses == [200] * 64


def test_a_running_application_reports_itself_healthy(url, version):
    from ray import serve

    status = serve.status().applications["tiny"]
    assert status.status == "RUNNING"
    assert list(status.deployments) == ["model"]


def test_the_stock_grpc_client_gets_the_answers_of_the_version(grpc_port, version, folder):
    tensor = triton_grpc.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object))
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        assert client.is_model_ready("tiny")
        answer = client.infer("tiny", [tensor])
        with pytest.raises(InferenceServerException, match="model_not_found") as refusal:
            client.infer("other", [tensor])
    examples = read_golden(folder / "tiny").examples
    assert answer.as_numpy("label").tolist() == [example.label.encode() for example in examples]
    assert refusal.value.status() == "StatusCode.NOT_FOUND"


def test_a_message_that_no_replica_would_take_is_refused_by_the_proxy(grpc_port, version):
    tensor = triton_grpc.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x" * (GRPC_MESSAGE_BYTES + 1)], dtype=object))
    with (
        triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client,
        pytest.raises(InferenceServerException, match="larger than max") as refusal,
    ):
        client.infer("tiny", [tensor])
    assert refusal.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_the_stock_http_client_gets_bytes_over_serve(url, version):
    tensor = triton_http.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"fine"], dtype=object))
    with triton_http.InferenceServerClient(url.removeprefix("http://")) as client:
        answer = client.infer("tiny", [tensor])
    assert answer.as_numpy("scores").shape == (1, 2)
