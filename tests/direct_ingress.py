"""Serves a version whose replicas listen themselves, and asks one at its own port: a script.

Serve reads the switch when its processes start, so this needs a Ray of its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import httpx
import ray

from kovar.serving import build
from kovar.serving.access.key import issue
from kovar.serving.access.key_file import add_key
from tiny_version import build_tiny_version, environment_of, register_tiny_version, settings_in

SOURCES = (Path(__file__).parents[1] / "platform", Path(__file__).parent)


def main(folder: Path, first_port: int) -> None:
    """Print what the ports of the proxy and of the replica say without and with a key."""
    from ray import serve

    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first_port + 1),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first_port + 9),
    }
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": variables},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": first_port})
    settings = settings_in(folder)
    os.environ.update(environment_of(settings))
    register_tiny_version(settings, build_tiny_version(folder / "tiny"))
    key, token = issue("caller", ("predict",))
    add_key(folder / "keys.json", key)
    application = build(
        {
            "model": "tiny",
            "replica": {"kind": "cpu", "cpus": 0.5},
            "access": {"keys": str(folder / "keys.json")},
        }
    )
    serve.run(application, name="tiny", route_prefix="/")
    told = {
        port: [ask(port), ask(port, authorization=f"Bearer {token}")]
        for port in range(first_port, first_port + 10)
    }
    print(json.dumps({"told": [statuses for statuses in told.values() if statuses[0]]}))
    serve.shutdown()
    ray.shutdown()


def ask(port: int, **headers: str) -> int | None:
    """Return the status of one prediction; None where nothing listens."""
    body = {"inputs": ["fine"]}
    try:
        address = f"http://127.0.0.1:{port}/v1/predict"
        return httpx.post(address, json=body, headers=headers, timeout=30).status_code
    except httpx.ConnectError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
