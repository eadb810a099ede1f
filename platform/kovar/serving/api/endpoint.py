"""Paths of the application: a table that both answers requests and documents itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kovar.errors import RequestError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kovar.serving.api.call import Call
    from kovar.serving.api.reply import Reply


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One path and method.

    Attributes:
        method: `GET` or `POST`.
        path: pattern such as `/v2/models/{model}/infer`.
        summary: what it does, for the documentation.
        answer: what does it.
        request: what the body holds.
        response: what the answer holds.
    """

    method: str
    path: str
    summary: str
    answer: Callable[[Call], Awaitable[Reply]]
    request: type[BaseModel] | None = None
    response: type[BaseModel] | None = None


class Routes:
    """Finds the endpoint of a path in time that does not grow with their number."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._found: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            self._found.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        """Return the endpoint and the parts of the path that its pattern names.

        Raises:
            RequestError: 404 no such path; 405 the path has another method.
        """
        params: dict[str, str] = {}
        methods = self._found.get(path)
        if methods is None:
            pattern, params = pattern_of(path)
            methods = self._found.get(pattern)
        if methods is None:
            raise RequestError("no such path", status=404, code="path_not_found")
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = ", ".join(sorted(methods))
            raise RequestError(f"wrong method, allowed: {allowed}", status=405, code="wrong_method")
        return endpoint, params


_MODELS: Final = ["", "v2", "models"]
_REPOSITORY: Final = ["", "v2", "repository", "models"]


def pattern_of(path: str) -> tuple[str, dict[str, str]]:
    """Name the model and the version in a path of the Open Inference Protocol."""
    parts = path.split("/")
    params: dict[str, str] = {}
    if parts[:3] == _MODELS and len(parts) > 3:
        params["model"], parts[3] = parts[3], "{model}"
        if len(parts) > 5 and parts[4] == "versions":
            params["version"], parts[5] = parts[5], "{version}"
    elif parts[:4] == _REPOSITORY and len(parts) > 4:
        params["model"], parts[4] = parts[4], "{model}"
    return "/".join(parts), params
