"""Who can reach the endpoints of a Serve configuration file, and what then stands between."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from kovar.config import format_size
from kovar.serving.environment import GRPC_MESSAGE_BYTES

SERVE_DEFAULT_HOST: Final = "0.0.0.0"  # noqa: S104 (what Serve listens on when a file says nothing)


def exposure_notes(
    fields: Mapping[str, Any],
    *,
    has_keys: bool,
    max_body_bytes: int = 0,
    behind_haproxy: bool = False,
) -> tuple[str, ...]:
    """Return what is worth knowing before a file is deployed; nothing for loopback alone.

    Args:
        fields: of a Ray Serve configuration file.
        has_keys: whether the application asks for API keys.
        max_body_bytes: largest body that the application takes.
        behind_haproxy: whether HAProxy takes the requests.
    """
    http = fields.get("http_options") or {}
    host = str(http.get("host") or SERVE_DEFAULT_HOST)
    notes = []
    if not _is_loopback(host):
        where = f"the endpoint listens on {host}"
        if not has_keys:
            notes.append(f"{where} without API keys: whoever reaches it may ask; set access.keys")
        if not http.get("ssl_certfile"):
            notes.append(f"{where} without TLS: keys and texts travel in the clear")
    if behind_haproxy and http.get("ssl_certfile"):
        notes.append(
            "HAProxy ends no TLS, and with ssl_certfile Serve's proxies do not come up behind it: "
            "leave it out, and put an ingress that ends TLS in front"
        )
    if (fields.get("grpc_options") or {}).get("grpc_servicer_functions"):
        notes.append("gRPC has no TLS in Serve and listens on every address of its nodes")
        if max_body_bytes > GRPC_MESSAGE_BYTES:
            notes.append(
                f"gRPC takes messages of {format_size(GRPC_MESSAGE_BYTES)}: for bodies of "
                f"{format_size(max_body_bytes)} set RAY_SERVE_GRPC_MAX_MESSAGE_SIZE as well"
            )
    return tuple(notes)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
