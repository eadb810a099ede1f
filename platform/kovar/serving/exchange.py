"""What is known of one request while it is answered: the seam between protocol, guard and logs.

The protocol writes what it learns, the guard the caller, the observer the end; the access log, the
metrics, the capture and the spans read nothing else.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kovar.inference import Timing

SCOPE_KEY: Final = "kovar.exchange"
ANSWERED: Final = "answered"


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        request_id: as the response's header names it.
        route: pattern of the path, such as `/v1/predict`; None before a route was found.
        method: HTTP method, or `RPC`.
        key_id: public id of the caller's key.
        code: why the request was refused; None when it was answered.
        status: HTTP status of the answer.
        model: name of the model that answered.
        version: its number.
        digest: its manifest's SHA-256.
        texts: what the caller sent; read by the capture alone, and never logged.
        labels: the label of each text, for the capture.
        num_texts: number of texts.
        num_tokens: number of tokens that the runtime read.
        timing: seconds of the parts.
        received_bytes: size of the request's body, as far as it was read.
        sent_bytes: size of the response's body.
        held_bytes: memory of the request's body; see `BodyRoom`.
        arrived: moment on `time.monotonic` at which the request came.
    """

    request_id: str = ""
    route: str | None = None
    method: str = ""
    key_id: str | None = None
    code: str | None = None
    status: int = 0
    model: str = ""
    version: str = ""
    digest: str = ""
    texts: Sequence[str] = ()
    labels: Sequence[str] = ()
    num_texts: int = 0
    num_tokens: int = 0
    timing: Timing | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    held_bytes: int = 0
    arrived: float = field(default_factory=time.monotonic)

    @property
    def outcome(self) -> str:
        """`answered`, or the code of the refusal."""
        return self.code or ANSWERED


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """Return the exchange of an ASGI connection; the first caller creates it."""
    found: Exchange | None = scope.get(SCOPE_KEY)
    if found is None:
        found = scope[SCOPE_KEY] = Exchange(method=scope.get("method", ""))
    return found
