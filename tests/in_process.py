"""One replica's HTTP application in this process, with a scripted runtime behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from kovar.serving.api import Middleware, Predictor, create_api
from kovar.serving.protocol import ServedVersion
from kovar.serving.served_model import served_model
from kovar.serving.spec import RequestLimits
from scripted import ScriptedRuntime

LIMITS = RequestLimits(
    max_text_characters=100, max_inputs=4, max_body_bytes=2000, max_queued=8, request_timeout_s=5.0
)
SERVED = ServedVersion(
    model="movie-sentiment",
    version=3,
    digest="ab" * 32,
    labels=("negative", "positive"),
    max_length=16,
    runtime="scripted",
    precision="fp32",
    vocabulary_size=100,
    embedding_size=2,
)

Ask = Callable[..., httpx.Response]


def asker(
    predictor: Predictor,
    limits: RequestLimits = LIMITS,
    *,
    served: ServedVersion = SERVED,
    middlewares: Sequence[Middleware] = (),
) -> Ask:
    """Return a function that sends one request: `ask("GET", "/v2")`."""
    model = served_model(
        served, predictor, getattr(predictor, "runtime", None) or ScriptedRuntime()
    )
    app = create_api([model], limits=limits, middlewares=middlewares)

    def ask(method: str, path: str, **request: Any) -> httpx.Response:
        return asyncio.run(send(app, method, path, **request))

    return ask


@contextmanager
def listening(app: Any, **settings: Any) -> Iterator[tuple[str, int]]:
    """Serve an application on loopback, in a thread of its own; gives its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        config = uvicorn.Config(app, log_level="critical", ws="none", **settings)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        yield sock.getsockname()
        server.should_exit = True
        thread.join()


async def send(app: Any, method: str, path: str, **request: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **request)
