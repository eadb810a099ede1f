"""The content-addressed store: `<root>/sha256/<first 2 digits>/<64 digits>`, one file per blob.

A blob appears under its name only when it is whole: it is written to `<root>/incoming/` first. It
never changes afterwards. Every read hashes what it reads. Small objects that belong to no version's
content, such as signatures, lie beside the blobs in folders of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from kovar.config import format_size
from kovar.errors import DamagedArtifactError, RegistryError, SettingsError
from kovar.registry.formats import SourceFile, open_regular
from kovar.registry.manifest import FileEntry
from kovar.settings import ensure_writable

CHUNK_BYTES: Final = 1 << 20
PART_BYTES: Final = 8 << 20
"""What one request to a remote store carries, at most."""
PARTS_UNDER_WAY: Final = 4
"""How many parts of one file may wait for the network, in memory."""
FOLDER: Final = "sha256"
INCOMING: Final = "incoming"
DAMAGED: Final = "damaged"

Progress = Callable[[int], None]
"""Told the number of bytes that were handled since the last call."""

_HDFS_HINT: Final = (
    "HDFS needs Java and Hadoop's libhdfs: set JAVA_HOME, HADOOP_HOME and CLASSPATH "
    "(`hadoop classpath --glob`)"
)
# Here an object appears only when its upload is complete, and folders do not exist.
_OBJECT_STORES: Final = ("s3", "gcs", "abfs")

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

    def read_object(self, path: str) -> bytes | None:
        """Return the content of a small object, or None if there is none."""

    def list_objects(self, folder: str) -> list[str]:
        """Return the paths of the small objects in a folder, sorted."""

    def write_object(self, path: str, content: bytes) -> None:
        """Store a small object, whole or not at all; replace what is there.

        Raises:
            RegistryError: the store cannot be written.
        """


def open_artifacts(root: str) -> ArtifactStore:
    """Open the store at a folder or at a URL that Arrow knows: s3://, gs://, hdfs://, file://.

    The query of a URL carries options, as `pyarrow.fs.FileSystem.from_uri` defines them:
    `s3://bucket/path?endpoint_override=minio:9000&scheme=http&region=us-east-1`.

    Raises:
        SettingsError: an unknown scheme, a malformed URL, or a driver that is not installed.
    """
    if root.startswith("file://"):
        root = root.removeprefix("file://")
    if "://" not in root:
        return LocalArtifacts(Path(root))
    return RemoteArtifacts(*open_filesystem(root, what="the artifact root", field="artifact_root"))


def open_filesystem(root: str, *, what: str, field: str) -> tuple[Any, str]:
    """Open a URL that Arrow knows; return a `pyarrow.fs.FileSystem` and the path in it.

    Args:
        root: the URL.
        what: how messages call it.
        field: the setting that holds it.

    Raises:
        SettingsError: an unknown scheme, a malformed URL, or a driver that is not installed.
    """
    import pyarrow as pa
    from pyarrow import fs

    try:
        filesystem, base = fs.FileSystem.from_uri(root)
    except (pa.ArrowException, ValueError, OSError) as problem:
        raise SettingsError(
            f"cannot open {what}: {problem}",
            field=field,
            got=root,
            allowed="a folder, or a URL that begins with s3://, gs:// or hdfs://",
            hint=_HDFS_HINT if root.startswith(("hdfs://", "viewfs://")) else None,
        ) from None
    if not base.strip("/"):
        raise SettingsError(
            f"{what} names no bucket or folder",
            field=field,
            got=root,
            allowed="for example s3://bucket/models",
        )
    return filesystem, base


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

    def read_object(self, path: str) -> bytes | None:
        """Return a small object; see `ArtifactStore.read_object`."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def list_objects(self, folder: str) -> list[str]:
        """List small objects; see `ArtifactStore.list_objects`."""
        try:
            return sorted(f"{folder}/{path.name}" for path in (self.root / folder).iterdir())
        except FileNotFoundError:
            return []

    def write_object(self, path: str, content: bytes) -> None:
        """Store a small object; see `ArtifactStore.write_object`."""
        incoming, target = self.root / INCOMING, self.root / path
        temporary = incoming / uuid.uuid4().hex
        try:
            for folder in (incoming, target.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
            for folder in (target.parent, target.parent.parent, self.root):
                _sync_folder(folder)
        except OSError as problem:
            raise _unwritable(str(self.root), problem) from None
        finally:
            temporary.unlink(missing_ok=True)


class RemoteArtifacts:
    """Blobs on any file system that Arrow reaches.

    The name of a blob is its digest, so a file is hashed first and sent only if its blob is not
    there. While it is sent, every part is compared with what was hashed before it leaves.

    On an object store a blob is sent straight to its name: a multi-part upload becomes visible
    only when it is complete, so a killed process leaves nothing there. Two uploads of one blob
    write equal bytes, whichever ends last; a conditional write (`If-None-Match`) would change
    nothing. On a file system with folders a blob is sent to `incoming` and renamed.

    Reading a blob back to compare it costs as much as sending it, so `put` trusts a blob of the
    right size unless `check` or `fetch` has marked it below `damaged/`.

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
            prefixes: list[bytes] = []
            size, digest = _hash(source, lambda part: None, each=prefixes.append, step=PART_BYTES)
            if size != file.size_bytes:
                raise _changed(file)
            entry = FileEntry(path=file.path, size_bytes=size, sha256=digest)
            try:
                if self._holds(entry):
                    if progress:
                        progress(size)
                    return entry
                source.seek(0)
                self._send(entry, _as_hashed(file, source, prefixes, progress))
            except OSError as problem:
                raise _unwritable(self.base, problem) from None
        return entry

    def _holds(self, entry: FileEntry) -> bool:
        """Whether the blob is there and nobody has found it damaged."""
        paths = [blob_path(entry.sha256), f"{DAMAGED}/{entry.sha256}"]
        blob, mark = self.filesystem.get_file_info([self._path(path) for path in paths])
        return bool(blob.is_file and blob.size == entry.size_bytes and not mark.is_file)

    def _send(self, entry: FileEntry, parts: Iterator[bytes]) -> None:
        blob = self._path(blob_path(entry.sha256))
        self._write(blob, parts)
        mark = self._path(f"{DAMAGED}/{entry.sha256}")
        if self.filesystem.get_file_info(mark).is_file:
            log.warning("%s: the damaged blob is replaced", blob)
            self.filesystem.delete_file(mark)

    def _write(self, path: str, parts: Iterator[bytes]) -> None:
        """Write a file that appears under its name only when it is whole."""
        direct = self.filesystem.type_name in _OBJECT_STORES
        target = path if direct else self._path(f"{INCOMING}/{uuid.uuid4().hex}")
        if not direct:
            for each in (target, path):
                self.filesystem.create_dir(each.rpartition("/")[0], recursive=True)
        stream = self.filesystem.open_output_stream(target)
        try:
            for number, part in enumerate(parts, start=1):
                stream.write(part)
                if number % PARTS_UNDER_WAY == 0:
                    # Arrow sends parts in the background and queues them without a bound.
                    stream.flush()
            stream.close()
        except BaseException:
            self._abandon(stream, target)
            raise
        if not direct:
            self.filesystem.move(target, path)

    def _abandon(self, stream: Any, target: str) -> None:
        # Arrow cannot abort an upload: a stream that is closed, or collected as garbage, publishes
        # the parts sent so far. They are shorter than the blob, so no one takes them for it.
        with contextlib.suppress(OSError):
            stream.close()
        with contextlib.suppress(OSError):
            self.filesystem.delete_file(target)

    def fetch(self, entry: FileEntry, target: Path) -> None:
        """Download a blob to `target`, verified; see `ArtifactStore.fetch`."""
        with self._open(entry) as source, self._marking(entry):
            _receive(entry, source, target, step=PART_BYTES)

    def check(self, entry: FileEntry) -> None:
        """Read and hash a blob; see `ArtifactStore.check`."""
        with self._open(entry) as source, self._marking(entry):
            _compare(entry, *_hash(source, lambda part: None, step=PART_BYTES))

    @contextlib.contextmanager
    def _marking(self, entry: FileEntry) -> Iterator[None]:
        """Mark a blob that turns out to be damaged, so that the next `put` replaces it."""
        try:
            yield
        except DamagedArtifactError:
            try:
                self.write_object(f"{DAMAGED}/{entry.sha256}", b"")
            except RegistryError as problem:
                log.warning("the damage cannot be marked: %s", problem.message)
            raise

    def _open(self, entry: FileEntry) -> Any:
        try:
            return self.filesystem.open_input_stream(self._path(blob_path(entry.sha256)))
        except FileNotFoundError:
            raise _missing(entry) from None
        except OSError as problem:
            raise _unreadable(problem) from None

    def read_object(self, path: str) -> bytes | None:
        """Return a small object; see `ArtifactStore.read_object`."""
        try:
            with self.filesystem.open_input_stream(self._path(path)) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise _unreadable(problem) from None
        return content

    def list_objects(self, folder: str) -> list[str]:
        """List small objects; see `ArtifactStore.list_objects`."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True)
        try:
            found = self.filesystem.get_file_info(selector)
        except OSError as problem:
            raise _unreadable(problem) from None
        return sorted(f"{folder}/{info.base_name}" for info in found if info.is_file)

    def write_object(self, path: str, content: bytes) -> None:
        """Store a small object; see `ArtifactStore.write_object`."""
        try:
            self._write(self._path(path), iter((content,)))
        except OSError as problem:
            raise _unwritable(self.base, problem) from None

    def _path(self, path: str) -> str:
        return f"{self.base}/{path}"


def _as_hashed(
    file: SourceFile, source: BinaryIO, prefixes: Sequence[bytes], progress: Progress | None
) -> Iterator[bytes]:
    """Read a file again, part by part, up to the first part that is not as it was hashed.

    Args:
        file: where it comes from.
        source: the open file, at its start.
        prefixes: the digest of the content up to the end of each part.
        progress: told of each part.

    Raises:
        RegistryError: the file changed meanwhile.
    """
    digest = hashlib.sha256()
    for expected in prefixes:
        part = source.read(PART_BYTES)
        digest.update(part)
        if digest.digest() != expected:
            raise _changed(file)
        yield part
        if progress:
            progress(len(part))


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


def _receive(entry: FileEntry, source: BinaryIO, target: Path, *, step: int = CHUNK_BYTES) -> None:
    with target.open("xb") as stream:
        size, digest = _hash(source, stream.write, step=step)
        stream.flush()
        os.fchmod(stream.fileno(), 0o444)
        os.fsync(stream.fileno())
    _compare(entry, size, digest)


def _hash(
    source: BinaryIO,
    write: Callable[[bytes], object],
    progress: Progress | None = None,
    *,
    each: Callable[[bytes], object] | None = None,
    step: int = CHUNK_BYTES,
) -> tuple[int, str]:
    """Read a stream in steps; `each` is given the digest up to the end of each step."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(step):
        digest.update(chunk)
        write(chunk)
        size += len(chunk)
        if each:
            each(digest.digest())
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


def not_as_manifest(path: str, what: str) -> DamagedArtifactError:
    """Build the error for a file that is not as the manifest it came with says."""
    return DamagedArtifactError(
        f"{path}: not as its manifest says: {what}",
        hint="nothing was registered; get the export again from where it was made",
        kind="altered",
        what=what,
        path=path,
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


def _unreadable(problem: OSError) -> RegistryError:
    return RegistryError(
        f"cannot read the artifact store: {problem}",
        hint="check the network and the credentials",
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
