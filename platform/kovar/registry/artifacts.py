"""The content-addressed store: `<root>/sha256/<first 2 digits>/<64 digits>`, one file per blob.

A blob appears under its name only when it is whole: it is written to `<root>/incoming/` first. It
never changes afterwards. Every read hashes what it reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from kovar.config import format_size
from kovar.errors import DamagedArtifactError, RegistryError, SettingsError
from kovar.registry.formats import SourceFile, open_regular
from kovar.registry.manifest import FileEntry
from kovar.settings import ensure_writable

CHUNK_BYTES: Final = 1 << 20
FOLDER: Final = "sha256"
INCOMING: Final = "incoming"

Progress = Callable[[int], None]
"""Told the number of bytes that were handled since the last call."""

log = logging.getLogger(__name__)


class ArtifactStore(Protocol):
    """Where blobs are kept."""

    def put(self, file: SourceFile, *, progress: Progress | None = None) -> FileEntry:
        """Store the content of a file, unless it is there already; return its entry.

        Raises:
            RegistryError: the file changed while it was read, or the store cannot be written.
        """

    def fetch(self, entry: FileEntry, target: Path) -> None:
        """Create the file `target` with the verified content of a blob.

        Raises:
            DamagedArtifactError: the blob is missing, truncated or altered.
        """

    def check(self, entry: FileEntry) -> None:
        """Read and hash a blob.

        Raises:
            DamagedArtifactError: the blob is missing, truncated or altered.
        """


def open_artifacts(root: str) -> ArtifactStore:
    """Open the store at a folder or at a URL that Arrow knows: s3://, gs://, hdfs://, file://.

    Raises:
        SettingsError: an unknown scheme or a malformed URL.
    """
    if root.startswith("file://"):
        root = root.removeprefix("file://")
    if "://" not in root:
        return LocalArtifacts(Path(root))
    import pyarrow as pa
    from pyarrow import fs

    try:
        filesystem, base = fs.FileSystem.from_uri(root)
    except (pa.ArrowException, ValueError, OSError) as problem:
        raise SettingsError(
            f"cannot open the artifact root: {problem}",
            field="artifact_root",
            got=root,
            allowed="a folder, or a URL that begins with s3://, gs:// or hdfs://",
        ) from None
    return RemoteArtifacts(filesystem, base)


def blob_path(sha256: str) -> str:
    """Return the path of a blob below the root."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}"


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class LocalArtifacts:
    """Blobs in a folder of this machine, or of a file system that all machines mount.

    One pass over each file: hashed while it is copied. Durable on return: the blob and the names
    that lead to it are fsynced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, file: SourceFile, *, progress: Progress | None = None) -> FileEntry:
        """Store the content of a file; see `ArtifactStore.put`."""
        incoming = self.root / INCOMING
        if not incoming.is_dir():
            ensure_writable(incoming, field="artifact_root")
        temporary = incoming / uuid.uuid4().hex
        try:
            with open_regular(file.location) as source, temporary.open("xb") as target:
                entry = _copy(file, source, target.write, progress)
                blob = self.root / blob_path(entry.sha256)
                if self._holds(entry):
                    return entry
                target.flush()
                os.fchmod(target.fileno(), 0o444)
                os.fsync(target.fileno())
            blob.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(blob)
            # Another process may have made a folder on the way and not have synced its name yet.
            for folder in (blob.parent, blob.parent.parent, self.root):
                _sync_folder(folder)
        except OSError as problem:
            raise _unwritable(str(self.root), problem) from None
        finally:
            temporary.unlink(missing_ok=True)
        return entry

    def _holds(self, entry: FileEntry) -> bool:
        blob = self.root / blob_path(entry.sha256)
        if not blob.exists():
            return False
        try:
            self.check(entry)
        except DamagedArtifactError as problem:
            log.warning("%s: replaced by the file that is being registered", problem.message)
            return False
        return True

    def fetch(self, entry: FileEntry, target: Path) -> None:
        """Link or copy a verified blob to `target`; see `ArtifactStore.fetch`."""
        self.check(entry)
        blob = self.root / blob_path(entry.sha256)
        try:
            target.hardlink_to(blob)
        except OSError as problem:
            log.info("copying %s: no hard link (%s)", entry.path, problem.strerror)
            with blob.open("rb") as source:
                _receive(entry, source, target)

    def check(self, entry: FileEntry) -> None:
        """Read and hash a blob; see `ArtifactStore.check`."""
        try:
            with (self.root / blob_path(entry.sha256)).open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            raise _missing(entry) from None
        except OSError as problem:
            raise _damaged(entry, "altered", f"cannot be read: {problem.strerror}") from None
        _compare(entry, size, digest)


class RemoteArtifacts:
    """Blobs on any file system that Arrow reaches.

    The network is slower than hashing, so a file is hashed first and sent only if its blob is not
    there; what is sent is hashed again.

    Args:
        filesystem: a `pyarrow.fs.FileSystem`.
        base: the root inside it.
    """

    def __init__(self, filesystem: Any, base: str) -> None:
        self.filesystem = filesystem
        self.base = base.rstrip("/")

    def put(self, file: SourceFile, *, progress: Progress | None = None) -> FileEntry:
        """Store the content of a file; see `ArtifactStore.put`."""
        with open_regular(file.location) as source:
            entry = _copy(file, source, lambda chunk: None, None)
            blob = self._path(blob_path(entry.sha256))
            try:
                if self._size(blob) != entry.size_bytes:
                    source.seek(0)
                    self._send(file, source, entry, blob, progress)
                elif progress:
                    progress(entry.size_bytes)
            except OSError as problem:
                raise _unwritable(self.base, problem) from None
        return entry

    def _send(
        self,
        file: SourceFile,
        source: BinaryIO,
        entry: FileEntry,
        blob: str,
        progress: Progress | None,
    ) -> None:
        temporary = self._path(f"{INCOMING}/{uuid.uuid4().hex}")
        for path in (temporary, blob):
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(temporary) as target:
            sent = _copy(file, source, target.write, progress)
        if sent != entry:
            self.filesystem.delete_file(temporary)
            raise _changed(file)
        self.filesystem.move(temporary, blob)

    def fetch(self, entry: FileEntry, target: Path) -> None:
        """Download a blob to `target`, verified; see `ArtifactStore.fetch`."""
        with self._open(entry) as source:
            _receive(entry, source, target)

    def check(self, entry: FileEntry) -> None:
        """Read and hash a blob; see `ArtifactStore.check`."""
        with self._open(entry) as source:
            _compare(entry, *_hash(source, lambda chunk: None))

    def _open(self, entry: FileEntry) -> Any:
        try:
            return self.filesystem.open_input_stream(self._path(blob_path(entry.sha256)))
        except FileNotFoundError:
            raise _missing(entry) from None
        except OSError as problem:
            raise RegistryError(
                f"cannot read the artifact store: {problem}",
                hint="check the network and the credentials",
            ) from None

    def _size(self, path: str) -> int | None:
        size: int | None = self.filesystem.get_file_info(path).size
        return size

    def _path(self, path: str) -> str:
        return f"{self.base}/{path}"


def _copy(
    file: SourceFile,
    source: BinaryIO,
    write: Callable[[bytes], object],
    progress: Progress | None,
) -> FileEntry:
    size, digest = _hash(source, write, progress)
    if size != file.size_bytes:
        raise _changed(file)
    return FileEntry(path=file.path, size_bytes=size, sha256=digest)


def _receive(entry: FileEntry, source: BinaryIO, target: Path) -> None:
    with target.open("xb") as stream:
        size, digest = _hash(source, stream.write)
        stream.flush()
        os.fchmod(stream.fileno(), 0o444)
        os.fsync(stream.fileno())
    _compare(entry, size, digest)


def _hash(
    source: BinaryIO, write: Callable[[bytes], object], progress: Progress | None = None
) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        write(chunk)
        size += len(chunk)
        if progress:
            progress(len(chunk))
    return size, digest.hexdigest()


def _compare(entry: FileEntry, size: int, digest: str) -> None:
    if digest == entry.sha256 and size == entry.size_bytes:
        return
    if size < entry.size_bytes:
        text = f"truncated to {format_size(size)} of {format_size(entry.size_bytes)}"
        raise _damaged(entry, "truncated", text)
    raise _damaged(entry, "altered", f"its content hashes to {digest}")


def _missing(entry: FileEntry) -> DamagedArtifactError:
    return _damaged(entry, "missing", "missing from the artifact store")


def _damaged(entry: FileEntry, kind: str, what: str) -> DamagedArtifactError:
    return DamagedArtifactError(
        f"{entry.path} (sha256 {entry.sha256}): {what}",
        hint="register the same files again to restore it, or restore the artifact root from a "
        "backup; `kovar models verify` lists all damage",
        kind=kind,
        what=what,
        sha256=entry.sha256,
    )


def _changed(file: SourceFile) -> RegistryError:
    return RegistryError(
        f"{file.location} changed while it was being registered",
        hint="register the folder when nothing writes to it any more",
    )


def _unwritable(root: str, problem: OSError) -> RegistryError:
    return RegistryError(
        f"cannot store artifacts in {root}: {problem.strerror or problem}",
        hint="check the space and the permissions; nothing was registered",
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
