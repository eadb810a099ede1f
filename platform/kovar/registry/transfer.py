"""Many files to or from an artifact store at once, with a bounded number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from kovar.registry.artifacts import ArtifactStore, Progress
from kovar.registry.formats import SourceFile
from kovar.registry.manifest import FileEntry

NUM_THREADS: Final = 8
"""Each holds one part of at most 8 MiB. Hashing and sending both leave Python's lock."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def put_all(
    store: ArtifactStore,
    files: Sequence[SourceFile],
    *,
    progress: Progress | None = None,
    num_threads: int = NUM_THREADS,
) -> list[FileEntry]:
    """Store files; return their entries in the same order.

    Blobs that are there already are not sent again, so a call after a crash goes on where the
    first one ended. After a failure no further file is begun; those under way are finished.

    Args:
        store: where to.
        files: what.
        progress: told of bytes as they are handled; never by two threads at once.
        num_threads: files under way at the same time.

    Raises:
        RegistryError: the first failure, in the order of the files.
    """
    lock = threading.Lock()

    def advance(size: int) -> None:
        if progress:
            with lock:
                progress(size)

    return _each(lambda file: store.put(file, progress=advance), files, num_threads)


def fetch_all(
    store: ArtifactStore,
    entries: Sequence[FileEntry],
    folder: Path,
    *,
    num_threads: int = NUM_THREADS,
) -> None:
    """Create the files of a version in an empty folder, verified.

    Raises:
        DamagedArtifactError: the first blob that is missing, truncated or altered.
    """

    def fetch(entry: FileEntry) -> None:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        store.fetch(entry, target)

    _each(fetch, entries, num_threads)


def _each(
    action: Callable[[ItemT], ResultT], items: Iterable[ItemT], num_threads: int
) -> list[ResultT]:
    with ThreadPoolExecutor(num_threads, thread_name_prefix="artifacts") as threads:
        pending = [threads.submit(action, item) for item in items]
        try:
            return [future.result() for future in pending]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
