"""A real head: large answers, clients that go away, parts of Serve that are killed under load."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
import yaml

from kovar.settings import load_settings
from ray_head import free_ports
from tiny_version import build_tiny_version, register_tiny_version

pytestmark = pytest.mark.cluster

PATIENCE_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mortal")


@pytest.fixture(scope="module")
def url(ray_head, folder):
    """Two replicas of a tiny version, deployed on the head."""
    register_tiny_version(
        load_settings(ray_head.environment), build_tiny_version(folder / "tiny"), model="mortal"
    )
    (port,) = free_ports(1)
    replica = {"kind": "cpu", "cpus": 0.5}
    limits = {"max_inputs": 40_000, "max_queued": 40_000}
    args = {"model": "mortal", "runtime": "torch", "num_replicas": 2, "replica": replica}
    args |= {"limits": limits, "observe": {"folder": str(folder / "observed")}}
    application = {
        "name": "mortal",
        "route_prefix": "/",
        "import_path": "kovar.serving.app:build",
        "args": args,
    }
    config = {"http_options": {"port": port, "host": "127.0.0.1"}, "applications": [application]}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    deployed = ray_head.run("serve", "deploy", str(path), "--address", ray_head.dashboard)
    assert deployed.returncode == 0, deployed.stderr
    assert any(len(running(ray_head)) == 2 or Event().wait(0.5) for _ in range(PATIENCE_S * 2))
    yield f"http://127.0.0.1:{port}"
    ray_head.run("serve", "shutdown", "-y", "--address", ray_head.dashboard)


def running(ray_head) -> list[int]:
    """Process ids of the replicas that answer."""
    token = Path(ray_head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    asked = httpx.get(
        f"{ray_head.dashboard}/api/serve/applications/",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    found = asked.json()["applications"].get("mortal", {}).get("deployments", {})
    return [
        replica["pid"]
        for deployment in found.values()
        for replica in deployment["replicas"]
        if replica["state"] == "RUNNING"
    ]


def test_an_answer_larger_than_a_message_of_grpc_by_default_passes(url):
    body = {"inputs": ["fine"] * 40_000}
    answer = httpx.post(f"{url}/v1/predict", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert len(answer.content) > 4 << 20
    assert len(answer.json()["predictions"]) == 40_000


def test_a_request_whose_client_goes_away_is_given_up(url, folder):
    body = json.dumps({"inputs": ["goodbye"] * 40_000}).encode()
    head = f"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    for _ in range(PATIENCE_S):
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as client:
            client.sendall(head + body)
            Event().wait(0.3)
        Event().wait(0.7)
        outcomes = [one["outcome"] for one in logged(folder) if one["received_bytes"] == len(body)]
        if outcomes:
            break
    assert set(outcomes) == {"client_gone"}


def logged(folder: Path) -> Iterator[dict]:
    """The requests in the access logs."""
    for path in (folder / "observed").glob("access-*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        yield from (line for line in lines if line["kind"] == "request")


def test_no_request_is_lost_when_a_replica_is_killed(ray_head, url):
    stop = Event()

    def ask(client: httpx.Client) -> list[int]:
        statuses = []
        while not stop.is_set():
            statuses.append(client.post("/v1/predict", json={"inputs": ["fine"] * 8}).status_code)
        return statuses

    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        askers = [pool.submit(ask, client) for _ in range(8)]
        Event().wait(1)
        os.kill(running(ray_head)[0], signal.SIGKILL)
        Event().wait(4)
        stop.set()
        statuses = [status for asker in askers for status in asker.result()]
    assert len(statuses) > 20
    assert set(statuses) == {200}
