"""Reads the content of requests: small ones at once, large ones beside the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, TypeVar

from kovar.errors import RequestError

LOOP_BYTES: Final = 64 << 10
"""Read at once up to this size: about a millisecond, and less than a change of threads may cost."""

ReadT = TypeVar("ReadT")


async def read_content(content: bytes, read: Callable[[bytes], ReadT], *, deadline: float) -> ReadT:
    """Return what a request's content means.

    A thread reads large contents, one after the other: meanwhile the event loop answers others, and
    however many large ones come, one thread at a time competes with it.

    Args:
        content: as it came.
        read: reads it; may raise `RequestError`.
        deadline: moment on `time.monotonic` from which nobody waits for the answer.

    Raises:
        RequestError: 504 there was no time left for it; or what `read` raises.
    """
    if len(content) <= LOOP_BYTES:
        return read(content)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            # What is still queued when the time is over is canceled, and never read.
            return await loop.run_in_executor(_reader(), _read_at_once, read, content)
    except TimeoutError:
        raise RequestError(
            "the deadline passed before the request was read",
            status=504,
            code="deadline_exceeded",
        ) from None


def _read_at_once(read: Callable[[bytes], ReadT], content: bytes) -> ReadT:
    """Read without the garbage collector: a million lists that all live cost it most of a second.

    Only the one thread of this module changes it.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return read(content)
    finally:
        if collects:
            gc.enable()


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="kovar-reader")
