"""How fast the candidates are on this chip: measured once, kept beside the cached versions."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.config import canonical_json
from kovar.inference.runtime import Encoded, Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

NUM_ROWS: Final = 32
MIN_RUNS: Final = 3
MIN_SECONDS: Final = 0.3
"""Of one candidate: the choice must not hold up a replica's start."""

_LIBRARIES: Final = ("torch", "onnxruntime", "openvino")


def texts_per_second(
    runtime: Runtime, batch: Sequence[Encoded], *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Run one batch again and again; return its rows over the median time.

    Args:
        runtime: a loaded version.
        batch: what it runs.
        clock: seconds that only move forward.
    """
    runtime.scores(batch)  # The first run allocates, and may compile.
    times: list[float] = []
    while len(times) < MIN_RUNS or sum(times) < MIN_SECONDS:
        began = clock()
        runtime.scores(batch)
        times.append(clock() - began)
    return len(batch) / statistics.median(times)


def sample_batch(encoded: Sequence[Encoded], *, max_length: int) -> list[Encoded]:
    """Return the rows that candidates are measured on: golden texts over and over.

    Args:
        encoded: the golden texts; without any, rows of 32 tokens.
        max_length: longest row.
    """
    rows = list(encoded) or [Encoded((1,) * min(32, max_length))]
    return [rows[index % len(rows)] for index in range(NUM_ROWS)]


@dataclass(frozen=True)
class Measurements:
    """What was measured for one version on one chip, with these libraries.

    Args:
        folder: where they are kept.
        key: facts that decide the speed.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, **facts: Any) -> Measurements:
        """Name the measurements by facts, and by the libraries' versions."""
        content = canonical_json(
            facts | {"libraries": {name: _version(name) for name in _LIBRARIES}}
        )
        return cls(folder, hashlib.sha256(content).hexdigest()[:32])

    @property
    def path(self) -> Path:
        """The file of the rates."""
        return self.folder / f"{self.key}.json"

    def read(self) -> dict[str, float]:
        """Return candidate → texts a second; empty where nothing was measured yet."""
        try:
            found: dict[str, float] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def write(self, rates: dict[str, float]) -> None:
        """Keep the rates."""
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(rates, sort_keys=True))
        draft.replace(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process of this machine measure; the others wait and read what it found."""
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            yield


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
