"""Garbage collection: blobs that no version needs, removed after a grace period.

Safe beside registrations without any lease: a registration commits its version and looks that all
its blobs are there within one transaction, and a sweep looks that nothing refers to a blob and
removes it within another; the database lets these two kinds of transaction pass one at a time
(`Database.keep_blobs`, `Database.sweep_blobs`). A registration whose blob went in between stores
it again. The grace period only keeps that from happening often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa

from kovar.errors import RegistryError
from kovar.registry.artifacts import (
    FOLDER,
    INCOMING,
    ArtifactStore,
    LocalArtifacts,
    RemoteArtifacts,
    blob_path,
)
from kovar.registry.database import Database
from kovar.registry.manifest import FileEntry
from kovar.registry.queries import Clock
from kovar.registry.schema import blob_uses, versions

BATCH: Final = 100
"""Blobs that are swept in one transaction; registrations wait that long at most."""

STALLED: Final = timedelta(hours=1)
"""An upload that wrote nothing for so long is dead, whatever the grace period."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of the artifact store."""

    path: str
    """Path below the root."""
    size_bytes: int
    modified_at: datetime

    @property
    def name(self) -> str:
        """The blob's SHA-256, for a blob."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a garbage collection found and did."""

    num_blobs: int
    """Blobs in the store before."""
    num_young: int
    """Unreferenced blobs that are younger than the grace period: kept."""
    swept: tuple[StoredFile, ...]
    """Blobs and unfinished uploads that were removed, or would be."""
    dry_run: bool

    @property
    def swept_bytes(self) -> int:
        """Length of all that was removed."""
        return sum(file.size_bytes for file in self.swept)


class StoreFiles(Protocol):
    """An artifact store, seen as files."""

    def walk(self, folder: str) -> Iterator[StoredFile]:
        """List the files below a folder; none where it does not exist."""

    def holds(self, path: str, size_bytes: int) -> bool:
        """Whether a file of this length is there."""

    def remove(self, path: str) -> None:
        """Remove a file; it may be gone already."""


def files_of(store: ArtifactStore) -> StoreFiles:
    """Return the files of an artifact store."""
    if isinstance(store, LocalArtifacts):
        return _LocalFiles(store.root)
    if isinstance(store, RemoteArtifacts):
        return _RemoteFiles(store.filesystem, store.base)
    raise RegistryError(f"cannot collect garbage in {type(store).__name__}")


class _LocalFiles:
    def __init__(self, root: Path) -> None:
        self.root = root

    def walk(self, folder: str) -> Iterator[StoredFile]:
        for path in (self.root / folder).rglob("*"):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if not path.is_dir():
                yield StoredFile(
                    path=path.relative_to(self.root).as_posix(),
                    size_bytes=status.st_size,
                    modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
                )

    def holds(self, path: str, size_bytes: int) -> bool:
        try:
            return (self.root / path).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)


class _RemoteFiles:
    def __init__(self, filesystem: Any, base: str) -> None:
        self.filesystem = filesystem
        self.base = base

    def walk(self, folder: str) -> Iterator[StoredFile]:
        from pyarrow import fs

        selector = fs.FileSelector(f"{self.base}/{folder}", recursive=True, allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file:
                yield StoredFile(
                    path=info.path.removeprefix(f"{self.base}/"),
                    size_bytes=info.size,
                    modified_at=info.mtime or datetime.now(UTC),
                )

    def holds(self, path: str, size_bytes: int) -> bool:
        found: bool = self.filesystem.get_file_info(f"{self.base}/{path}").size == size_bytes
        return found

    def remove(self, path: str) -> None:
        try:
            self.filesystem.delete_file(f"{self.base}/{path}")
        except FileNotFoundError:
            return


def absent(files: StoreFiles, entries: Sequence[FileEntry]) -> list[FileEntry]:
    """Return the entries whose blobs are not in the store."""
    return [
        entry for entry in entries if not files.holds(blob_path(entry.sha256), entry.size_bytes)
    ]


def sweep(
    database: Database,
    files: StoreFiles,
    *,
    grace: timedelta,
    dry_run: bool,
    clock: Clock,
) -> Sweep:
    """Remove what no version needs and nobody touched for the grace period.

    Args:
        database: says what is needed.
        files: the artifact store's.
        grace: age from which an unreferenced blob goes, and the files of a deleted version.
        dry_run: remove nothing.
        clock: tells the time that ages are counted from.
    """
    limit = clock() - grace
    blobs = list(files.walk(FOLDER))
    dead = min(limit, clock() - STALLED)
    unfinished = [file for file in files.walk(INCOMING) if file.modified_at <= dead]
    garbage = _unreferenced(database, blobs, limit)
    old = [file for file in garbage if file.modified_at <= limit]
    swept = [*unfinished, *old]
    if not dry_run:
        for file in unfinished:
            files.remove(file.path)
        swept = [*unfinished, *_remove(database, files, old, limit)]
    return Sweep(
        num_blobs=len(blobs),
        num_young=len(garbage) - len(old),
        swept=tuple(sorted(swept, key=lambda file: file.path)),
        dry_run=dry_run,
    )


def _remove(
    database: Database, files: StoreFiles, old: Sequence[StoredFile], limit: datetime
) -> Iterator[StoredFile]:
    for start in range(0, len(old), BATCH):
        batch = old[start : start + BATCH]
        with database.writing() as connection:
            database.sweep_blobs(connection)
            needed = _referenced(connection, [file.name for file in batch], limit)
            for file in batch:
                if file.name not in needed:
                    files.remove(file.path)
                    yield file


def _unreferenced(
    database: Database, blobs: Sequence[StoredFile], limit: datetime
) -> list[StoredFile]:
    found: list[StoredFile] = []
    for start in range(0, len(blobs), BATCH):
        batch = blobs[start : start + BATCH]
        with database.reading() as connection:
            needed = _referenced(connection, [file.name for file in batch], limit)
        found += [file for file in batch if file.name not in needed]
    return found


def _referenced(connection: sa.Connection, digests: Sequence[str], limit: datetime) -> set[str]:
    """Return the blobs that a version needs: one that is there, or was deleted after the limit."""
    query = (
        sa.select(blob_uses.c.sha256)
        .join(versions, blob_uses.c.version_id == versions.c.id)
        .where(blob_uses.c.sha256.in_(digests))
        .where(versions.c.deleted_at.is_(None) | (versions.c.deleted_at > limit))
    )
    return set(connection.execute(query).scalars())
