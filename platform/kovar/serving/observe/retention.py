"""Files of logs and samples that are old enough to go."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

DAY_S: Final = 86_400.0


def remove_old(folder: Path, pattern: str, *, days: int) -> None:
    """Remove files that nobody has written to for so many days.

    Those of replicas that are gone are among them; one that writes has touched its own file since.

    Args:
        folder: where they are; it need not exist.
        pattern: of their names.
        days: how long files are kept.
    """
    oldest = time.time() - days * DAY_S
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another replica was first
            if path.stat().st_mtime < oldest:
                path.unlink()
