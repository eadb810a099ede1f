"""The keys that a replica knows: read again when the file changes, without a restart."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kovar.errors import RequestError, SettingsError
from kovar.serving.access.key import ApiKey
from kovar.serving.access.key_file import read_keys

logger = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 1.0
GRACE_S: Final = 60.0
"""Seconds for which the keys known so far hold when the file cannot be read any more."""

Mark = tuple[int, int, int]


class Keyring:
    """The keys of one file.

    The file is looked at once a second at most, when a key is asked for. A file that is gone or
    damaged is no reason to let everybody in, and a moment without it is none to let nobody in: the
    keys known so far hold for a minute, then every request is refused until the file is back.

    Args:
        path: the file.
        clock: seconds that only move forward.

    Raises:
        SettingsError: the file cannot be read to begin with.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._mark = _mark(path)
        self._keys = {key.id: key for key in read_keys(path)}
        self._checked = clock()
        self._failing_since: float | None = None

    def find(self, key_id: str) -> ApiKey | None:
        """Return the key with a public id, as the file holds it now.

        Raises:
            RequestError: 503 the file cannot be read, and the time of grace is over.
        """
        now = self._clock()
        if now - self._checked >= CHECK_EVERY_S:
            self._checked = now
            self._look_again(now)
        if self._failing_since is not None and now - self._failing_since > GRACE_S:
            raise RequestError(
                "the keys cannot be checked now",
                status=503,
                code="keys_unreadable",
                hint="the server's log says why",
            )
        return self._keys.get(key_id)

    def _look_again(self, now: float) -> None:
        mark = _mark(self._path)
        if self._failing_since is None and mark is not None and mark == self._mark:
            return
        try:
            keys = read_keys(self._path)
        except SettingsError as problem:
            if self._failing_since is None:
                logger.error("the API keys cannot be read again: %s", problem)
                self._failing_since = now
            return
        self._mark, self._failing_since = mark, None
        self._keys = {key.id: key for key in keys}
        logger.info("read %d API keys again", len(keys))


def _mark(path: Path) -> Mark | None:
    """Return what changes with the file: a mounted secret is swapped behind its symbolic link."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
