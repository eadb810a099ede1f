"""A real endpoint as it stands in the open: TLS, keys on every port, seen by a real Prometheus."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

import prometheus
from kovar.serving import build
from kovar.serving.access.key import issue
from kovar.serving.access.key_file import add_key, replace_key
from tiny_version import build_tiny_version, environment_of, register_tiny_version, settings_in

pytestmark = pytest.mark.ray

RULES = Path(__file__).parents[2] / "serve" / "observability" / "alerts.yaml"
BODY = {"inputs": ["i loved it, tell jane@example.org"]}


@dataclass(frozen=True)
class Endpoint:
    client: httpx.Client
    grpc_port: int
    keys: Path
    logs: Path
    token: str
    key_id: str

    def ask(self, token: str | None = None, **options) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.client.post("/v1/predict", json=BODY, headers=headers, **options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Write a certificate of 127.0.0.1, signed by itself, with its key in the same file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "tls.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def endpoint(ray_session, certificate, tmp_path_factory) -> Iterator[Endpoint]:
    from ray import serve

    folder = tmp_path_factory.mktemp("locked")
    key, token = issue("caller", ("predict",))
    add_key(folder / "keys.json", key)
    settings = settings_in(folder)
    register_tiny_version(settings, build_tiny_version(folder / "tiny"))
    port, grpc_port = _free_port(), _free_port()
    tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(certificate)}
    serve.start(
        http_options={"host": "127.0.0.1", "port": port, **tls},
        grpc_options={
            "port": grpc_port,
            "grpc_servicer_functions": ["kovar.serving.rpc.add_service"],
        },
        tracing_config={"enabled": True, "sampling_ratio": 1.0},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(settings).items():
            patch.setenv(name, value)
        patch.setenv("KOVAR_API_KEYS", str(folder / "keys.json"))
        observe = {"folder": str(folder / "logs"), "capture": {"share": 1.0}}
        replica = {"kind": "cpu", "cpus": 0.5}
        application = build({"model": "tiny", "replica": replica, "observe": observe})
    serve.run(application, name="locked", route_prefix="/films")
    context = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=f"https://127.0.0.1:{port}/films", verify=context) as client:
        yield Endpoint(client, grpc_port, folder / "keys.json", folder / "logs", token, key.id)
    serve.shutdown()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_only_a_key_opens_the_endpoint(endpoint):
    assert endpoint.ask(endpoint.token).status_code == 200
    assert endpoint.ask().json()["code"] == "key_missing"
    assert endpoint.ask(issue("other", ("admin",))[1]).json()["code"] == "key_unknown"
    assert endpoint.client.get("/v2/health/ready").status_code == 200
    assert endpoint.client.get("/v2").status_code == 401


def test_a_stock_client_of_grpc_needs_the_same_key(endpoint):
    tensor = triton_grpc.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"i loved it"], dtype=np.object_))
    headers = {"application": "locked"}
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{endpoint.grpc_port}") as client:
        assert client.is_server_live(headers=headers)
        with pytest.raises(InferenceServerException, match="a key is needed"):
            client.infer("tiny", [tensor], headers=headers)
        headers["authorization"] = f"Bearer {endpoint.token}"
        answer = client.infer("tiny", [tensor], headers=headers)
        assert answer.as_numpy("label").shape == (1,)
        with pytest.raises(InferenceServerException, match="scope metadata"):
            client.get_server_metadata(headers=headers)


def test_a_client_without_tls_gets_no_answer(endpoint):
    plain = str(endpoint.client.base_url).replace("https", "http")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{plain}/v2/health/live")


def test_a_key_is_taken_back_without_a_restart(endpoint):
    key, token = issue("leaver", ("predict",))
    add_key(endpoint.keys, key)
    assert _soon(lambda: endpoint.ask(token).status_code == 200)
    revoked = {"revoked_at": datetime.now(UTC)}
    replace_key(endpoint.keys, key.id, lambda key: key.model_copy(update=revoked))
    assert _soon(lambda: endpoint.ask(token).status_code == 401)
    assert endpoint.ask(token).json()["code"] == "key_revoked"


def _soon(holds) -> bool:
    """Whether something comes true within ten seconds."""
    pause = threading.Event()
    for _ in range(100):
        if holds():
            return True
        pause.wait(0.1)
    return False


def test_logs_name_the_caller_and_captures_are_masked(endpoint):
    response = endpoint.ask(endpoint.token)
    lines = [json.loads(line) for path in endpoint.logs.glob("access-*") for line in _lines(path)]
    mine = next(r for r in lines if r.get("request_id") == response.headers["x-kovar-request-id"])
    assert (mine["key"], mine["outcome"], mine["route"]) == (
        endpoint.key_id,
        "answered",
        "/v1/predict",
    )
    assert _soon(lambda: "[EMAIL]" in _written(endpoint.logs))
    assert "jane" not in _written(endpoint.logs)
    assert endpoint.token not in _written(endpoint.logs)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _written(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.iterdir())


def test_prometheus_scrapes_requests_batches_and_versions(endpoint, tmp_path):
    import ray

    endpoint.ask(endpoint.token)
    targets = [f"{n['NodeManagerAddress']}:{n['MetricsExportPort']}" for n in ray.nodes()]
    with prometheus.scraping(tmp_path, targets, RULES) as server:
        mine = '{application="locked",outcome="answered"}'
        assert server.wait_for(f"ray_kovar_requests_total{mine}") >= 1
        for name in ("kovar_tokens_total", "kovar_version_info", "kovar_golden_check",
                     "kovar_request_seconds_count", "kovar_cold_start_seconds"):  # fmt: skip
            assert server.wait_for(f'ray_{name}{{application="locked"}}') > 0
        assert server.wait_for(f'ray_kovar_key_requests_total{{key="{endpoint.key_id}"}}') >= 1
        assert [group["name"] for group in server.get("rules")["groups"]] == ["kovar-endpoints"]


def test_top_shows_the_version_and_its_traffic(endpoint):
    from kovar.cli import app

    def shown() -> dict:
        output = CliRunner().invoke(app, ["top", "--json"], catch_exceptions=False).output
        found = json.loads(output)["applications"]
        return next((one for one in found if one["application"] == "locked"), {})

    endpoint.ask(endpoint.token)
    assert _soon(lambda: shown().get("versions", [{}])[0].get("num_answered", 0) >= 1)
    (version,) = shown()["versions"]
    assert (version["model"], version["version"], version["num_replicas"]) == ("tiny", "1", 1)
    assert version["num_refused"] >= 1
    table = CliRunner().invoke(app, ["top", "--once"], catch_exceptions=False).output
    assert "locked" in table


def test_spans_tell_stages_and_outcome_and_no_text(endpoint):
    from ray.serve._private.logging_utils import get_serve_logs_dir

    endpoint.ask(endpoint.token)
    folder = Path(get_serve_logs_dir(), "spans")
    spans = "".join(path.read_text() for path in folder.glob("*replica*"))
    for part in ("kovar.tokenize", "kovar.queue", "kovar.compute", '"kovar.outcome": "answered"'):
        assert part in spans
    assert "jane" not in spans
