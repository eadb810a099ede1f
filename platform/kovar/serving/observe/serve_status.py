"""What Serve itself says of its applications: also of those that have no replica to count for them.

Source: https://docs.ray.io/en/latest/serve/api/index.html#get-api-serve-applications
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kovar.errors import UserError

PATH: Final = "/api/serve/applications/"
TIMEOUT_S: Final = 5.0
_URL_KEY: Final = b"webui:url"
_NAMESPACE: Final = b"dashboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeStatus:
    """One application as Serve knows it.

    Attributes:
        status: in Serve's words: RUNNING, DEPLOYING, DEPLOY_FAILED, UNHEALTHY, …
        message: why, where Serve says so.
        num_running: replicas that run.
        num_target: replicas that there are to be.
    """

    status: str
    message: str
    num_running: int
    num_target: int

    @property
    def is_asleep(self) -> bool:
        """Whether it has scaled to zero: its next request starts a replica."""
        return self.status == "RUNNING" and self.num_target == 0


def dashboard_url(address: str) -> str | None:
    """Return the address of a cluster's dashboard; None where it has none or does not tell.

    Args:
        address: host:port of the cluster's head.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    try:
        found = GcsClient(address=address).internal_kv_get(_URL_KEY, _NAMESPACE, timeout=TIMEOUT_S)
    except (RayError, RuntimeError):
        return None
    return f"http://{found.decode()}" if found else None


def read_status(url: str | None) -> dict[str, ServeStatus] | None:
    """Ask a dashboard for Serve's applications.

    Args:
        url: of the dashboard.

    Returns:
        Applications by name; None where no dashboard answers.

    Raises:
        UserError: the address is none of HTTP.
    """
    if url is None:
        return None
    if not url.startswith(("http://", "https://")):
        raise UserError("not an http(s) address", field="--dashboard", got=url)
    from ray._private.authentication.http_token_authentication import (
        get_auth_headers_if_auth_enabled,
    )

    headers = get_auth_headers_if_auth_enabled({})
    asked = urllib.request.Request(url.rstrip("/") + PATH, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:  # noqa: S310
            return parse_status(json.load(response))
    except (OSError, ValueError):
        return None


def parse_status(details: Mapping[str, Any]) -> dict[str, ServeStatus]:
    """Read the answer of Serve's REST interface."""
    return {
        name: _status(application)
        for name, application in (details.get("applications") or {}).items()
    }


def _status(application: Mapping[str, Any]) -> ServeStatus:
    deployments = list((application.get("deployments") or {}).values())
    return ServeStatus(
        status=application.get("status", ""),
        message="\n".join(_messages(application, deployments)),
        num_running=sum(
            replica.get("state") == "RUNNING"
            for deployment in deployments
            for replica in deployment.get("replicas") or ()
        ),
        num_target=sum(deployment.get("target_num_replicas") or 0 for deployment in deployments),
    )


def _messages(
    application: Mapping[str, Any], deployments: list[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield what the application says, and what those of its deployments say that are not well."""
    unwell = [one for one in deployments if one.get("status") != "HEALTHY"]
    for one in (application, *unwell):
        if text := (one.get("message") or "").strip():
            yield text
