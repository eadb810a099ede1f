"""A file of JSON lines that only grows, is closed at a size and never holds up a request."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from pydantic_core import to_json

logger = logging.getLogger(__name__)

FOLDER_MODE = 0o700
FILE_MODE = 0o600
COMPLAIN_EVERY_S = 60.0


class JsonLines:
    """Writes one line a record; closed files are `NAME.1`, the newest, to `NAME.n`.

    A disk that is full or gone loses lines and no request: lost ones are counted and told once a
    minute.

    Args:
        path: the file; its folder is made, for its owner alone.
        max_bytes: size at which the file is closed.
        num_files: closed files that are kept.
    """

    def __init__(self, path: Path, *, max_bytes: int, num_files: int) -> None:
        self.path = path
        self.num_lost = 0
        self._max_bytes = max_bytes
        self._num_files = num_files
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size = 0
        self._told = -COMPLAIN_EVERY_S

    def write(self, record: dict[str, Any]) -> None:
        """Append a record as one line."""
        line = to_json(record) + b"\n"
        with self._lock:
            try:
                self._append(line)
                return
            except OSError as problem:
                self._close()
                self.num_lost += 1
                reason = problem.strerror
        # Without the lock: Kovar's own messages may be lines of this very file.
        self._complain(reason)

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        with self._lock:
            self._close()

    def _append(self, line: bytes) -> None:
        if self._descriptor is not None and self._size + len(line) > self._max_bytes:
            self._close()
            self._shift()
        if self._descriptor is not None and not os.fstat(self._descriptor).st_nlink:
            # The file was removed, by somebody who took it for one of a replica that is gone.
            self._close()
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = os.open(self.path, flags, FILE_MODE)
            self._size = os.fstat(self._descriptor).st_size
        # One write a line: a line is never torn between two replicas or by a kill.
        self._size += os.write(self._descriptor, line)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _shift(self) -> None:
        names = [self.path, *(self._closed(n) for n in range(1, self._num_files + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)

    def _closed(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _complain(self, reason: str | None) -> None:
        if time.monotonic() - self._told >= COMPLAIN_EVERY_S:
            self._told = time.monotonic()
            logger.error("%s cannot be written: %s", self.path.name, reason)
