"""Serves a version whose replicas listen themselves, and asks one at its own port: a script.

usage: python direct_ingress.py FOLDER FIRST_PORT SWITCH

SWITCH is RAY_SERVE_ENABLE_DIRECT_INGRESS or RAY_SERVE_ENABLE_HA_PROXY, with which HAProxy listens
on the first port instead of Serve's proxy. Serve reads it when its processes start, so this needs
a Ray of its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from threading import Event

import httpx
import ray

from kovar.serving import build
from kovar.serving.access.key import issue
from kovar.serving.access.key_file import add_key
from tiny_version import build_tiny_version, environment_of, register_tiny_version, settings_in

SOURCES = (Path(__file__).parents[1] / "platform", Path(__file__).parent)
PATIENCE_S = 60


def main(folder: Path, first_port: int, switch: str) -> None:
    """Print what the ports of the proxy and of the replica say without and with a key."""
    from ray import serve

    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        switch: "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(first_port + 10),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(first_port + 11),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first_port + 12),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first_port + 13),
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
    # HAProxy is told of the replicas a moment later.
    any(ask(first_port) == 401 or Event().wait(0.2) for _ in range(PATIENCE_S * 5))
    told = {
        port: [ask(port), ask(port, authorization=f"Bearer {token}")]
        for port in range(first_port, first_port + 10)
    }
    print(json.dumps({"told": [statuses for statuses in told.values() if statuses[0]]}))
    serve.shutdown()
    ray.shutdown()


def ask(port: int, **headers: str) -> int | None:
    """Return the status of one prediction; None where no such server listens."""
    body = {"inputs": ["fine"]}
    try:
        address = f"http://127.0.0.1:{port}/v1/predict"
        return httpx.post(address, json=body, headers=headers, timeout=30).status_code
    except httpx.TransportError:  # nobody listens, or somebody who speaks something else
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
