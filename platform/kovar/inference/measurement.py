"""How fast the candidates are on this chip: measured once, kept beside the cached versions."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from kovar.config import canonical_json
from kovar.inference.runtime import Encoded, Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

NUM_ROWS: Final = 32
MIN_RUNS: Final = 3
MIN_SECONDS: Final = 0.3
"""Of one candidate: the choice must not hold up a replica's start."""

MAX_WAIT_S: Final = 300.0
"""For another process that measures: longer than any takes that does not hang."""

_RATES: Final = TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]])
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
        """Return candidate → texts a second; empty where nothing usable was measured yet."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return {}
        try:
            return dict(_RATES.validate_json(content))
        except ValidationError:
            log.warning("the measurements in %s are damaged: measured again", self.path.name)
            return {}

    def forget(self) -> None:
        """Let the next one measure, although it was done."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as problem:
            log.warning("the measurements in %s stay: %s", self.path.name, problem.strerror)

    def write(self, rates: Mapping[str, float]) -> None:
        """Keep the rates; a disk that takes none costs the next replica a measurement."""
        draft = self.path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(rates, sort_keys=True))
            draft.replace(self.path)
        except OSError as problem:
            log.warning("the measurements are not kept: %s", problem.strerror)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process of this machine measure; the others wait and read what it found.

        They do not wait for one that hangs, nor where the folder takes no lock.
        """
        from filelock import FileLock

        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self.path.with_suffix(".lock"), timeout=MAX_WAIT_S))
            except OSError as problem:
                log.warning("measured without a lock: %s", type(problem).__name__)
            yield


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
