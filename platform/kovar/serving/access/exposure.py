"""Who can reach the endpoints of a Serve configuration file, and what then stands between."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

SERVE_DEFAULT_HOST: Final = "0.0.0.0"  # noqa: S104 (what Serve listens on when a file says nothing)


def exposure_notes(fields: Mapping[str, Any], *, has_keys: bool) -> tuple[str, ...]:
    """Return what is worth knowing before a file is deployed; nothing for loopback alone.

    Args:
        fields: of a Ray Serve configuration file.
        has_keys: whether the application asks for API keys.
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
    if (fields.get("grpc_options") or {}).get("grpc_servicer_functions"):
        notes.append("gRPC has no TLS in Serve and listens on every address of its nodes")
    return tuple(notes)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
