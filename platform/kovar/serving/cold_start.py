"""Where the time of a replica's start goes, stage by stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from kovar.inference.choice import LIBRARIES
from kovar.inference.runtime import Encoded

if TYPE_CHECKING:
    from kovar.registry.artifacts import ArtifactStore
    from kovar.registry.cache import VersionCache
    from kovar.registry.manifest import Manifest

logger = logging.getLogger(__name__)

Stage = Literal["import", "fetch", "verify", "load", "warm"]
"""The stages, in order.

import: the libraries of the runtime; fetch: files from the artifact store, hashed on their way;
verify: files that this machine had, hashed; load: the model, its golden examples; warm: one short
and one long batch, so that the first request pays for no kernel's choice.

What Ray needs to find a place and to start a process comes before them, and is seen from outside
alone: `benchmarks/serving.py` measures it.
"""


class ColdStart:
    """Seconds of each stage.

    Args:
        clock: seconds that only move forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time a block; blocks of one stage add up."""
        begin = self._clock()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - begin

    def materialize(
        self, digest: str, manifest: Manifest, cache: VersionCache, artifacts: ArtifactStore
    ) -> Path:
        """Return the verified files of a version; timed as a fetch where they were not here.

        Raises:
            DamagedArtifactError: a file is missing, truncated or altered.
        """
        with self.stage("verify" if (cache.folder / digest).is_dir() else "fetch"):
            return cache.materialize(digest, manifest, artifacts, rehash=True)

    def log(self, name: str) -> None:
        """Write the stages into the log."""
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.seconds.items())
        logger.info("started %s in %.2f s: %s", name, sum(self.seconds.values()), stages)


def import_library(runtime: str) -> None:
    """Import what a runtime that a spec names computes with; `auto` imports what it chooses."""
    library = LIBRARIES.get(runtime, runtime)
    if runtime != "auto":
        import_module(library)


class Runs(Protocol):
    """What is warmed up; every runtime is one."""

    max_length: int

    def tokenize(self, texts: Sequence[str]) -> list[Encoded]:
        """Turn texts into token ids."""
        ...

    def run(self, batch: Sequence[Encoded]) -> Sequence[object]:
        """Run one batch."""
        ...


def warm_up(runtime: Runs) -> None:
    """Run a short text and one as long as the model takes."""
    short, long = runtime.tokenize(["a", "a " * runtime.max_length])
    runtime.run([short])
    runtime.run([long])
