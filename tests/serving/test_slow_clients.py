"""A real server on loopback, and clients that do not finish their headers."""

from __future__ import annotations

import queue
import socket
import struct
from collections.abc import Iterator

import pytest
import uvicorn

from in_process import LIMITS, SERVED, listening
from kovar.serving.api import create_api
from kovar.serving.served_model import served_model
from kovar.serving.slow_clients import TimedProtocol, time_out_headers

REQUEST = b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\n\r\n"


class Hasty(TimedProtocol):
    header_timeout_s = 0.1


@pytest.fixture
def address(runner, runtime) -> Iterator[tuple[str, int]]:
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    with listening(app, http=Hasty) as address:
        yield address


@pytest.mark.parametrize("sent", [b"", REQUEST[:20]])
def test_a_connection_without_a_whole_header_is_closed(address, sent):
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(sent)
        assert client.recv(100) == b""


def test_a_kept_connection_may_pause_between_requests_but_not_within_a_header(address):
    with socket.create_connection(address, timeout=20) as client:
        for _ in range(2):
            client.sendall(REQUEST)
            assert b'{"live":true}' in client.recv(4096)
        client.sendall(REQUEST[:20])
        assert client.recv(100) == b""


def test_a_header_that_does_not_end_is_not_kept(runner, runtime):
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    with listening(app, http=TimedProtocol) as address:
        client = socket.create_connection(address, timeout=20)
        client.sendall(REQUEST[:-2])
        with client, pytest.raises(OSError, match=r"reset|pipe"):
            client.sendall((b"x: " + b"x" * 64_000 + b"\r\n") * 1_000)


def test_requests_in_one_piece_are_no_large_header(address):
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(REQUEST * 2_000)
        received = b""
        while received.count(b"HTTP/1.1 200") < 2_000 and (piece := client.recv(1 << 20)):
            received += piece
    assert received.count(b"HTTP/1.1 200") == 2_000


def test_servers_that_start_later_hold_the_deadline(monkeypatch):
    from uvicorn.config import HTTP_PROTOCOLS

    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    time_out_headers()
    config = uvicorn.Config(lambda scope, receive, send: None)
    config.load()
    assert config.http_protocol_class is TimedProtocol


def test_a_connection_that_breaks_is_not_kept_in_memory(runner, runtime):
    lost: queue.Queue = queue.Queue()

    class Watched(TimedProtocol):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            lost.put((exc, self.timeout_keep_alive_task))

    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    with listening(app, http=Watched) as address:
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(REQUEST)
            assert b'{"live":true}' in client.recv(4096)
            # The end of the connection is a reset, as where a load balancer drops it.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exc, timer = lost.get(timeout=20)
    assert isinstance(exc, ConnectionResetError)
    assert timer is None
