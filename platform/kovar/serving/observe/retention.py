"""Files of logs and samples that are old enough to go."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DAY_S: Final = 86_400.0
EVERY_S: Final = 3600.0


class Retention:
    """Removes old files at once and then every hour, in a thread of its own.

    Files of replicas that are gone are among them; one that writes has touched its own file since.

    Args:
        folder: where they are; it need not exist.
        days: patterns of names, and how long files of such a name are kept.
        every_s: seconds between two looks.
    """

    def __init__(self, folder: Path, days: Mapping[str, int], *, every_s: float = EVERY_S) -> None:
        self._folder = folder
        self._days = dict(days)
        self._every_s = every_s
        self._closed = threading.Event()
        self._remove()
        self._thread = threading.Thread(target=self._work, name="kovar-retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closed.wait(self._every_s):
            self._remove()

    def _remove(self) -> None:
        for pattern, days in self._days.items():
            remove_old(self._folder, pattern, days=days)


def remove_old(folder: Path, pattern: str, *, days: int) -> None:
    """Remove files that nobody has written to for so many days.

    Args:
        folder: where they are; it need not exist.
        pattern: of their names.
        days: how long files are kept.
    """
    oldest = time.time() - days * DAY_S
    for path in folder.glob(pattern):
        # Another replica was first, or the file is somebody else's: neither stops a replica.
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
