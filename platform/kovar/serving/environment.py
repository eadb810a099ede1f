"""What Serve reads from the environment when it starts, where its defaults lose requests or time.

The variables count in the processes of Ray that Serve's controller and proxies come from: those of
`ray start`, or of the program that calls `ray.init` itself.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Final

GRPC_MESSAGE_BYTES: Final = 4 << 20

SERVE_ENVIRONMENT: Final = {
    # A dead proxy is replaced within 6 s instead of half a minute: it is asked each second, and its
    # death is an answer. One that is merely busy has longer: replacing it in an overload loses all
    # that it holds.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "10",
    # A prediction whose replica died is sent once more; headers have a deadline.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "kovar.serving.proxy:middlewares",
    # Half the cost of a request: Kovar's replicas never block their event loop, so they need no
    # thread beside Serve's, nor its router; log lines are written in bulk, and to files alone.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # A proxy speaks to replicas by the gRPC servers that they have anyway, not by calls of actors.
    # An answer is one message, and may be larger than gRPC's own 4 MiB.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 << 20),
    # uvloop takes one new connection in each turn of the loop, so that in an overload, when turns
    # are long, those who come late wait for many seconds; asyncio's own loop takes all of them.
    # With Kovar's replicas both are as fast.
    "RAY_USE_UVLOOP": "0",
    # A message of gRPC is refused at its first bytes, before Serve holds it to ask a replica, which
    # has the keys; Serve's own limit is 2 GiB. As large as a body may be by default.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(GRPC_MESSAGE_BYTES),
    # The second try for HAProxy, which reads these where it is switched on.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "1",
}


HAPROXY_SWITCH: Final = "RAY_SERVE_ENABLE_HA_PROXY"


def is_behind_haproxy(environment: Mapping[str, str]) -> bool:
    """Return whether Serve, started with these variables, has HAProxy take the requests."""
    return environment.get(HAPROXY_SWITCH) == "1"


def missing(environment: Mapping[str, str]) -> list[str]:
    """Return the names of what is not set."""
    return [name for name in SERVE_ENVIRONMENT if name not in environment]


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what is not set yet; call it before Ray starts."""
    for name, value in SERVE_ENVIRONMENT.items():
        environment.setdefault(name, value)
