"""A real server on loopback whose door is kept: who is turned away, and what they are told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from in_process import LIMITS, SERVED, listening
from kovar.errors import RequestError
from kovar.serving.api import create_api
from kovar.serving.door import DOOR, Keeper
from kovar.serving.exchange import Exchange
from kovar.serving.served_model import served_model
from kovar.serving.slow_clients import TimedProtocol

BODY = b'{"inputs": ["good"]}'
HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n"
PREDICT = HEAD % len(BODY) + b"\r\n" + BODY
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\n\r\n"


class Hasty(TimedProtocol):
    header_timeout_s = 0.1


def full(num_inside: int) -> RequestError:
    return RequestError("the queue is full", status=429, code="queue_full", retry_after_s=2.5)


@pytest.fixture
def turned_away() -> list[Exchange]:
    return []


@pytest.fixture
def address(runner, runtime, turned_away) -> Iterator[tuple[str, int]]:
    """A server whose queue is full."""
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    keeper = Keeper(full, SERVED, turned_away.append)
    DOOR.keep(keeper)
    with listening(app, http=Hasty) as address:
        yield address
    DOOR.leave(keeper)


def talk(address: tuple[str, int], sent: bytes, *, answers: int = 1) -> bytes:
    """Send bytes; return what comes until so many answers are there."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(sent)
        received = b""
        while received.count(b"HTTP/1.1 ") < answers and (piece := client.recv(1 << 16)):
            received += piece
    return received


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/predict", "/v1/predict"),
        ("/movies/v1/embeddings?x=1", "/v1/embeddings"),
        ("/v2/models/movie-sentiment/infer", "/v2/models/{model}/infer"),
        ("/movies/v2/models/m/versions/3/infer", "/v2/models/{model}/versions/{version}/infer"),
    ],
)
def test_predictions_are_refused_as_by_the_application(address, turned_away, path, route):
    with httpx.Client(base_url="http://{}:{}".format(*address)) as client:
        answer = client.post(path, content=BODY, headers={"x-kovar-request-id": "mine"})
    assert answer.status_code == 429
    assert answer.json() == {"error": "the queue is full", "code": "queue_full", "field": None}
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-kovar-request-id"] == "mine"
    assert answer.headers["x-kovar-model"] == "movie-sentiment"
    assert answer.headers["x-kovar-version"] == "3"
    (exchange,) = turned_away
    assert (exchange.route, exchange.method, exchange.status) == (route, "POST", 429)
    assert (exchange.outcome, exchange.request_id) == ("queue_full", "mine")
    assert exchange.sent_bytes == len(answer.content)


def test_what_does_not_need_the_queue_comes_in(address):
    with httpx.Client(base_url="http://{}:{}".format(*address)) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.post("/v2/repository/index", json={}).status_code == 200
        assert client.get("/v1/predict").status_code == 405


def test_a_connection_outlives_the_requests_that_were_turned_away(address):
    received = talk(address, PREDICT * 3 + LIVE, answers=4)
    assert received.count(b"HTTP/1.1 429") == 3
    assert received.endswith(b'{"live":true}')


def test_a_large_body_is_dropped(address):
    large = b"x" * 300_000
    received = talk(address, HEAD % len(large) + b"\r\n" + large + LIVE, answers=2)
    assert received.count(b"HTTP/1.1 429") == 1
    assert received.endswith(b'{"live":true}')


def test_a_body_that_does_not_end_ends_the_connection(address):
    received = talk(address, HEAD % 100 + b"\r\n{", answers=2)
    assert received.count(b"HTTP/1.1 429") == 1


def test_a_connection_that_closes_is_left_to_the_application(address, turned_away):
    received = talk(address, HEAD % len(BODY) + b"connection: close\r\n\r\n" + BODY)
    assert received.startswith(b"HTTP/1.1 200")
    assert turned_away == []


def test_a_client_that_does_not_read_is_left_to_the_application(runner, runtime, turned_away):
    class Unread(TimedProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.flow.pause_writing()
            self.loop.call_later(0.1, self.flow.resume_writing)

    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    keeper = Keeper(full, SERVED, turned_away.append)
    DOOR.keep(keeper)
    with listening(app, http=Unread) as address:
        received = talk(address, PREDICT)
    DOOR.leave(keeper)
    assert received.startswith(b"HTTP/1.1 200")
    assert turned_away == []


def test_requests_that_have_come_and_are_not_answered_are_counted(runner, runtime):
    counts: list[int] = []

    def note(num_inside: int) -> None:
        counts.append(num_inside)

    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    keeper = Keeper(note, SERVED, lambda exchange: None)
    DOOR.keep(keeper)
    runtime.gate.clear()
    with listening(app, http=TimedProtocol) as address:
        one, other, half = (socket.create_connection(address, timeout=20) for _ in range(3))
        half.sendall(PREDICT[:-1])  # it does not ask yet
        one.sendall(PREDICT)
        other.sendall(PREDICT)
        assert wait_until(lambda: DOOR.num_inside == 2)
        other.close()
        assert wait_until(lambda: DOOR.num_inside == 1)
        runtime.gate.set()
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert wait_until(lambda: DOOR.num_inside == 0)
        half.close()
        one.close()
    DOOR.leave(keeper)
    assert len(counts) == 3


def test_only_the_last_keeper_keeps_the_door(turned_away):
    first, second = (Keeper(full, SERVED, turned_away.append) for _ in range(2))
    DOOR.keep(first)
    DOOR.keep(second)
    DOOR.leave(first)
    answer = DOOR.turn_away(b"POST", b"/v1/predict", [])
    DOOR.leave(second)
    assert answer is not None
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "queue_full"
    assert DOOR.turn_away(b"POST", b"/v1/predict", []) is None


def test_an_answer_is_sent_at_once(runner, runtime):
    found: list[int] = []

    class Spy(TimedProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            connection = transport.get_extra_info("socket")
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    with listening(app, http=Spy) as address:
        talk(address, LIVE)
    assert found == [1]


def wait_until(holds) -> bool:
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        threading.Event().wait(0.01)
    return holds()
