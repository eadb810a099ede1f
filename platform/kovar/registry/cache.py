"""Verified local copies of versions: `<cache>/versions/<digest>/`, as a loader wants them.

Beside each folder, `<digest>.json` notes size, modification time and inode of each file when it
was verified. A folder that no longer matches its note is made again from the artifact store.

The cache can have a bound in bytes. The versions used longest ago are evicted first; one that a
living process uses is never evicted: each process holds a lock on `<digest>.use` until it ends or
releases the version. The time of that file is the time of the last use.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from kovar.config import format_size
from kovar.registry.artifacts import ArtifactStore, hash_file
from kovar.registry.manifest import Manifest
from kovar.registry.transfer import fetch_all
from kovar.settings import ensure_writable

log = logging.getLogger(__name__)

# The versions in use by this process: `.use` file → descriptor that holds its shared lock.
_in_use: Final[dict[Path, int]] = {}
_in_use_lock: Final = threading.Lock()


class VersionCache:
    """The materialized versions of one machine.

    Args:
        folder: the `versions` folder.
        max_bytes: bound on what the cache takes from the disk; files that are hard links to the
            artifact store take nothing. A single version may exceed it.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def materialize(
        self, digest: str, manifest: Manifest, artifacts: ArtifactStore, *, rehash: bool = False
    ) -> Path:
        """Return the folder that holds exactly the files of a version.

        Args:
            digest: the version's.
            manifest: the version's.
            artifacts: where the blobs are.
            rehash: read and hash every file even if nothing touched it since it was verified.

        Raises:
            DamagedArtifactError: a blob is missing, truncated or altered.
            SettingsError: the cache cannot be written.
        """
        folder = self.folder / digest
        if not self.folder.is_dir():
            ensure_writable(self.folder, field="cache_dir")
        self._use(digest)
        if self._intact(digest, manifest, rehash=rehash):
            return folder
        from filelock import FileLock

        ensure_writable(self.folder, field="cache_dir")
        with FileLock(self.folder / f"{digest}.lock"):
            if not self._intact(digest, manifest, rehash=rehash):
                self._build(digest, manifest, artifacts)
        self._evict()
        return folder

    def release(self, digest: str) -> None:
        """Say that this process no longer needs a version, so that it may be evicted."""
        with _in_use_lock:
            descriptor = _in_use.pop(self._use_file(digest), None)
        if descriptor is not None:
            os.close(descriptor)

    def _use(self, digest: str) -> None:
        path = self._use_file(digest)
        try:
            with _in_use_lock:
                if path in _in_use:
                    with suppress(FileNotFoundError):  # the cache was deleted
                        os.utime(path)
                        return
                    os.close(_in_use.pop(path))
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                # Waits only while another process moves this very version out of the way.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                _in_use[path] = descriptor
            os.utime(path)
        except OSError as problem:
            log.info("not noting the use of %s: %s", digest, problem.strerror)

    def _evict(self) -> None:
        """Remove the versions used longest ago until the rest keeps the bound."""
        if self.max_bytes is None:
            return
        sizes = {path: _taken(path) for path in self.folder.iterdir() if _is_version(path)}
        excess = sum(sizes.values()) - self.max_bytes
        for path in sorted(sizes, key=lambda path: _last_use(self._use_file(path.name))):
            if excess <= 0:
                return
            if sizes[path] and self._remove(path.name):
                excess -= sizes[path]
        if excess > 0:
            log.warning(
                "the cached versions in use take %s more than the bound of %s",
                format_size(excess),
                format_size(self.max_bytes),
            )

    def _remove(self, digest: str) -> bool:
        """Remove a version unless a process uses it; return whether it is gone."""
        folder, stale = self.folder / digest, self.folder / f".{digest}.old"
        with self._use_file(digest).open("ab") as used:
            try:
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            shutil.rmtree(stale, ignore_errors=True)
            with suppress(FileNotFoundError):  # another process evicts, too
                folder.rename(stale)
            self._note(digest).unlink(missing_ok=True)
            shutil.rmtree(stale, ignore_errors=True)
        log.info("evicted %s from the cache", digest)
        return True

    def _build(self, digest: str, manifest: Manifest, artifacts: ArtifactStore) -> None:
        folder = self.folder / digest
        # Named by the digest, so that the next build removes what a killed one left.
        fresh, stale = self.folder / f".{digest}.new", self.folder / f".{digest}.old"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fetch_all(artifacts, manifest.files, fresh)
            if folder.exists():
                folder.rename(stale)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(stale, ignore_errors=True)
        note = self.folder / f".{digest}.json"
        note.write_text(json.dumps(_state(folder)))
        note.replace(self._note(digest))

    def _intact(self, digest: str, manifest: Manifest, *, rehash: bool) -> bool:
        try:
            noted = json.loads(self._note(digest).read_text())
        except (OSError, ValueError):
            return False
        folder = self.folder / digest
        if _state(folder) != noted or noted.keys() != {file.path for file in manifest.files}:
            return False
        return not rehash or all(
            hash_file(folder / file.path) == file.sha256 for file in manifest.files
        )

    def _note(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"

    def _use_file(self, digest: str) -> Path:
        return self.folder / f"{digest}.use"


def _state(folder: Path) -> dict[str, list[int]]:
    state: dict[str, list[int]] = {}
    with suppress(OSError):  # what cannot be looked at does not match its note
        _look(str(folder), "", state)
    return state


def _look(folder: str, prefix: str, state: dict[str, list[int]]) -> None:
    """Note each file below a folder; plain text for paths, because this runs at every use."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                _look(entry.path, f"{name}/", state)
            else:
                seen = entry.stat(follow_symlinks=False)
                state[name] = [seen.st_size, seen.st_mtime_ns, seen.st_ino]


def _is_version(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _taken(folder: Path) -> int:
    """Return the bytes that removing a version would free."""
    seen = [Path(parent, name).lstat() for parent, _, names in os.walk(folder) for name in names]
    return sum(status.st_size for status in seen if status.st_nlink == 1)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # made by an earlier Kovar
        return 0.0
