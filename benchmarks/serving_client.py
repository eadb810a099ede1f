"""A load generator for serving.py, in a process of its own: HTTP/1.1 over plain asyncio.

usage: python serving_client.py < one line of JSON

{"port": 8000, "bodies": [...], "path": "/v1/predict", "seconds": 10, "clients": 64} keeps 64
requests in flight (closed loop); with "phases": [[10, 300], [5, 50]] instead of both, requests come
at random moments, 300 a second on average for 10 seconds, then 50, whether answers come or not
(open loop). With "half_open": 500 as many connections stand beside them, whose requests never end
and that are opened anew when the server hangs up. With "tries": 4 a request whose connection broke
is sent again after 50 ms, up to so many times in all. Prints one line of JSON: the moment, the
latency and the status of each request; status 0 is a connection that broke.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_S = 60.0
MAX_CONNECTIONS = 2000
RETRY_S = 0.05


@dataclass
class Outcome:
    """What came of each request: (moment it was sent, seconds, status)."""

    begin: float
    requests: list[tuple[float, float, int]] = field(default_factory=list)

    def note(self, sent: float, status: int) -> None:
        """Note an answer."""
        self.requests.append((sent - self.begin, time.perf_counter() - sent, status))


class Connection(asyncio.Protocol):
    """One connection that stays open between requests.

    A protocol and not streams: a client's own cost of a request comes out of what the server on
    the same cores can do.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._status: asyncio.Future[int] | None = None

    async def ask(self, request: bytes, *, tries: int = 1) -> int:
        """Send a request; return the status, 0 when the connection breaks at each try."""
        status = await self._try(request)
        for _ in range(tries - 1):
            if status != 0:
                break
            await asyncio.sleep(RETRY_S)
            status = await self._try(request)
        return status

    async def _try(self, request: bytes) -> int:
        loop = asyncio.get_running_loop()
        # As every HTTP client does: what the server has hung up on is not used again.
        if self._transport is None:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await loop.create_connection(lambda: self, "127.0.0.1", self._port)
            except (OSError, TimeoutError):
                return 0
        self._received, self._status = b"", loop.create_future()
        assert self._transport is not None
        self._transport.write(request)
        overdue = loop.call_later(TIMEOUT_S, self.close)
        try:
            return await self._status
        finally:
            overdue.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what requests are written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Settle the request once its whole answer is there."""
        self._received += data
        answer = answer_of(self._received)
        if answer is None:
            return
        status, closes = answer
        if closes:
            self.close(status)
        else:
            self._settle(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle the request that waits: it is lost."""
        self.close()

    def close(self, status: int = 0) -> None:
        """Close it; the next request opens it again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._settle(status)

    def _settle(self, status: int) -> None:
        if self._status is not None and not self._status.done():
            self._status.set_result(status)


def answer_of(received: bytes) -> tuple[int, bool] | None:
    """Return an answer's status and whether the server hangs up; None while it is not whole."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        whole = body.endswith(b"0\r\n\r\n")
    else:
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        whole = len(body) >= int(length or 0)
    if not whole:
        return None
    return int(head[9:12]), b"connection: close" in head


def encoded(job: dict[str, Any]) -> list[bytes]:
    """Return the requests as they go over the wire."""
    head = f"POST {job['path']} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    bodies = [json.dumps(body).encode() for body in job["bodies"]]
    return [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


async def closed(job: dict[str, Any], outcome: Outcome) -> None:
    """Keep so many requests in flight."""
    requests = encoded(job)
    until = outcome.begin + job["seconds"]

    async def client(number: int) -> None:
        connection = Connection(job["port"])
        while (now := time.perf_counter()) < until:
            number += 1
            outcome.note(now, await connection.ask(requests[number * 7919 % len(requests)]))
        connection.close()

    await asyncio.gather(*(client(number) for number in range(job["clients"])))


async def opened(job: dict[str, Any], outcome: Outcome) -> None:
    """Send requests at random moments; a request uses a connection that is idle."""
    requests, chance = encoded(job), random.Random(0)
    idle: list[Connection] = []
    limit = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send(due: float, request: bytes) -> None:
        async with limit:
            connection = idle.pop() if idle else Connection(job["port"])
            # From the moment it was due: a late sender must not hide what clients would see.
            outcome.note(due, await connection.ask(request, tries=job.get("tries", 1)))
            idle.append(connection)

    tasks: list[asyncio.Task[None]] = []
    end = outcome.begin
    for seconds, rate in job["phases"]:
        due, end = end + chance.expovariate(rate), end + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(send(due, requests[len(tasks) % len(requests)])))
            due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()


class HalfOpen:
    """Connections whose requests never end.

    Args:
        port: of the server.
        path: that they ask.
    """

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            'content-length: 99\r\n\r\n{"inputs": ['
        ).encode()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, number: int) -> None:
        """Open them."""
        opened = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(number)]
        self._tasks = [asyncio.create_task(self._hold(*streams)) for streams in opened]

    async def stop(self) -> None:
        """Close them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                writer.write(self._request)
                await reader.read()  # to the end: until the server hangs up
            except OSError:
                pass
            finally:
                writer.close()
            reader, writer = await self._again()

    async def _again(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.1)


async def run(job: dict[str, Any]) -> Outcome:
    """Generate the load."""
    slow = HalfOpen(job["port"], job["path"])
    await slow.start(job.get("half_open", 0))
    outcome = Outcome(time.perf_counter())
    await (opened if "phases" in job else closed)(job, outcome)
    await slow.stop()
    return outcome


def allow_connections() -> None:
    """Let this process have as many open files as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    allow_connections()
    print(json.dumps(asyncio.run(run(json.loads(sys.stdin.readline()))).requests))
