"""Attempts: each start of a run's workers claims a number, and the newest number alone may write.

A worker that hung, or lost its network, and comes back after it was replaced finds a higher number
and is refused. A claim is a file that is created if it does not exist, which file systems do for
one process alone.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from kovar.errors import SupersededError


@dataclass(frozen=True)
class Attempt:
    """One start of the workers.

    Args:
        folder: the run's folder of claims.
        number: counts from 1.
    """

    folder: Path
    number: int

    @classmethod
    def claim(cls, folder: Path) -> Attempt:
        """Take the next number; whoever had the one before may write no more."""
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.name) for path in folder.iterdir()), default=0)
        while True:
            try:
                fd = os.open(folder / f"{number:06d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                number += 1
                continue
            with os.fdopen(fd, "w") as file:
                file.write(f"{socket.gethostname()} {os.getpid()}\n")
            return cls(folder, number)

    def check(self) -> None:
        """Return if this attempt is the newest one.

        Numbers are claimed without gaps, so one look is enough.

        Raises:
            SupersededError: another start of the workers took its place.
        """
        if (self.folder / f"{self.number + 1:06d}").exists():
            raise SupersededError(
                f"attempt {self.number} of run {self.folder.parent.name} was replaced and may "
                "write no more",
                hint="nothing is lost: a later attempt goes on with the run",
            )
