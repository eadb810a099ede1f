"""The gate in front of an ASGI application."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from kovar.serving.access.gate import Gate
from kovar.serving.access.key import Scope
from kovar.serving.access.settings import OpenPart
from kovar.serving.exchange import exchange_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Connection

OPEN_PATHS: Final[dict[OpenPart, frozenset[str]]] = {
    "health": frozenset({"/v2/health/live", "/v2/health/ready"}),
    "docs": frozenset({"/docs", "/openapi.json"}),
}
_READING: Final = frozenset({"GET", "HEAD"})
_READ_BY_POST: Final = frozenset({"/v2/repository/index"})
"""The protocol lists models by POST; nothing changes."""
_NAMES: Final = {b"authorization": "authorization", b"x-api-key": "x-api-key"}


class GateMiddleware:
    """Asks the gate before anything of a request's body is read; the envelope answers refusals.

    Args:
        app: what is guarded.
        gate: the decision.
        opened: what answers without a key.
    """

    def __init__(self, app: ASGIApp, gate: Gate, *, opened: Collection[OpenPart]) -> None:
        self._app = app
        self._gate = gate
        self._opened = frozenset(opened)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Let a request through, or raise `RequestError`."""
        if scope["type"] != "http" or not self._gate.is_locked:
            await self._app(scope, receive, send)
            return
        needed = scope_of(scope["method"], path_in(scope), self._opened)
        with self._gate.admit(credentials_in(scope), needed) as key:
            exchange_of(scope).key_id = key.id if key else None
            await self._app(scope, receive, send)


def scope_of(method: str, path: str, opened: Collection[OpenPart]) -> Scope | None:
    """Return what a request needs; None where no key is needed. Unknown paths need a key, too."""
    if method not in _READING and path not in _READ_BY_POST:
        return "admin" if path.startswith("/v2/repository") else "predict"
    if "metadata" in opened or any(path in OPEN_PATHS.get(part, ()) for part in opened):
        return None
    return "metadata"


def path_in(scope: Connection) -> str:
    """Return the path below the prefix under which the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) or "/" if path.startswith(f"{root}/") else path


def credentials_in(scope: Connection) -> dict[str, str]:
    """Return the headers that may hold a key; one that is there twice has no valid value."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        known = _NAMES.get(name)
        if known is not None:
            text = value.decode("latin-1")
            found[known] = f"{found[known]},{text}" if known in found else text
    return found
