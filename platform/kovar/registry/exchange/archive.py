"""A version as one file, for machines without a network: a zip archive of the exported folder.

Everything in it is stored, not deflated: weights do not shrink, equal versions give equal archives,
and no archive can unpack to more than its own size.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import tempfile
import uuid
import zipfile
from pathlib import Path
from typing import Final

from kovar.config import format_size
from kovar.errors import NotFoundError, UserError
from kovar.registry.artifacts import CHUNK_BYTES, not_as_manifest
from kovar.registry.exchange.envelope import MANIFEST_FILE, MAX_BYTES, Envelope
from kovar.registry.exchange.folder import check_files, refuse_existing
from kovar.registry.formats import MAX_FILES
from kovar.registry.manifest import FileEntry
from kovar.registry.registry import Progress, Registry
from kovar.registry.version import Version

SUFFIX: Final = ".kovar.zip"
MAX_ARCHIVE_BYTES: Final = 1 << 40
_TIME: Final = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED: Final = 0x1
# What zipfile raises when the structure of an archive is damaged.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


def export_archive(registry: Registry, version: Version, target: Path) -> Path:
    """Write a version into a new archive, which appears when it is whole.

    Args:
        registry: where the version is.
        version: the version.
        target: the file; must not exist.

    Raises:
        UserError: the file exists or cannot be written.
        DamagedArtifactError: a blob is missing, truncated or altered.
    """
    refuse_existing(target)
    envelope = Envelope.of(registry, version)
    source = registry.materialize(version, rehash=True)
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("xb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_info(MANIFEST_FILE), envelope.to_bytes())
                for entry in version.manifest.files:
                    _add(archive, entry, source / entry.path)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(target)
    except OSError as problem:
        text = f"cannot write the archive: {problem.strerror or problem}"
        raise UserError(text, file=target) from None
    finally:
        fresh.unlink(missing_ok=True)
    return target


def import_archive(
    registry: Registry,
    path: Path,
    *,
    model: str | None = None,
    progress: Progress | None = None,
    max_bytes: int = MAX_ARCHIVE_BYTES,
) -> Version:
    """Register the version in an archive, as itself; nothing of it is visible before it is checked.

    Args:
        registry: where to.
        path: the archive.
        model: name of the model; the name it had by default.
        progress: told of the bytes stored.
        max_bytes: refuse an archive of more.

    Raises:
        DamagedArtifactError: an entry was altered, is missing, or does not belong to the version.
        UnsafeArtifactError: a file that may not enter the registry.
        NotFoundError: no such file.
        UserError: not an archive of Kovar, or too large.
    """
    if not path.is_file():
        raise NotFoundError("no such archive to import", got=str(path))
    if (size := path.stat().st_size) > max_bytes:
        raise UserError(
            "the archive is too large",
            file=path,
            got=format_size(size),
            allowed=f"at most {format_size(max_bytes)}",
        )
    try:
        archive = zipfile.ZipFile(path)
    except (*_DAMAGE, OSError) as problem:
        raise _no_archive(path, str(problem)) from None
    with archive, tempfile.TemporaryDirectory(prefix="kovar-import-") as temporary:
        envelope = _read_envelope(archive, path)
        for entry in envelope.manifest.files:
            _extract(archive, entry, Path(temporary) / entry.path)
        files = check_files(Path(temporary), envelope.manifest)
        return envelope.register(registry, files, model=model, progress=progress)


def _read_envelope(archive: zipfile.ZipFile, path: Path) -> Envelope:
    """Read the manifest, and prove that the archive holds exactly its files, plainly stored."""
    entries = archive.infolist()
    if len(entries) > MAX_FILES + 1:
        raise _no_archive(path, f"{len(entries):,} entries; at most {MAX_FILES + 1:,}")
    seen: set[str] = set()
    for info in entries:
        _check_info(info, seen)
        seen.add(info.filename)
    if MANIFEST_FILE not in seen:
        raise _no_archive(path, f"it has no {MANIFEST_FILE}")
    if archive.getinfo(MANIFEST_FILE).file_size > MAX_BYTES:
        raise not_as_manifest(MANIFEST_FILE, f"larger than {format_size(MAX_BYTES)}")
    try:
        content = archive.read(MANIFEST_FILE)
    except (*_DAMAGE, OSError):
        raise not_as_manifest(MANIFEST_FILE, "another content") from None
    envelope = Envelope.parse(content)
    if envelope.manifest.size_bytes > path.stat().st_size:
        raise not_as_manifest(MANIFEST_FILE, "it names more bytes than the archive has")
    expected = {file.path: file.size_bytes for file in envelope.manifest.files}
    for info in entries:
        if info.filename == MANIFEST_FILE:
            continue
        if info.filename not in expected:
            raise not_as_manifest(info.filename, "a file that is not in the manifest")
        if info.file_size != expected[info.filename]:
            raise not_as_manifest(
                info.filename, f"{info.file_size:,} bytes, not {expected[info.filename]:,}"
            )
    for name in expected:
        if name not in seen:
            raise not_as_manifest(name, "missing")
    return envelope


def _check_info(info: zipfile.ZipInfo, seen: set[str]) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    what = None
    if info.filename in seen:
        what = "it is there twice"
    elif info.orig_filename != info.filename:
        what = "its name is not what it seems"
    elif info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        what = "it is compressed"
    elif info.flag_bits & _ENCRYPTED:
        what = "it is encrypted"
    elif info.is_dir() or kind not in (0, stat.S_IFREG):
        what = "it is not a plain file"
    if what:
        raise not_as_manifest(info.filename, what)


def _extract(archive: zipfile.ZipFile, entry: FileEntry, target: Path) -> None:
    # The path is the manifest's, which stays inside the folder, never the archive's.
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with archive.open(entry.path) as source, target.open("xb") as stream:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                stream.write(chunk)
    except _DAMAGE:
        raise not_as_manifest(entry.path, "another content") from None
    except OSError as problem:
        raise UserError(
            f"cannot unpack {entry.path}: {problem.strerror}",
            hint="set TMPDIR to a folder with more space",
        ) from None
    if digest.hexdigest() != entry.sha256:
        raise not_as_manifest(entry.path, "another content")


def _add(archive: zipfile.ZipFile, entry: FileEntry, source: Path) -> None:
    info = _info(entry.path)
    info.file_size = entry.size_bytes  # decides whether the entry needs 64-bit sizes
    digest = hashlib.sha256()
    with source.open("rb") as stream, archive.open(info, "w") as target:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != entry.sha256:
        raise not_as_manifest(entry.path, "it changed while it was copied")


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_TIME)
    info.compress_type = zipfile.ZIP_STORED
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _no_archive(path: Path, why: str) -> UserError:
    return UserError(
        f"not an archive of Kovar: {why}",
        file=path,
        hint="`kovar models export REF --to FILE --format archive` writes one",
    )
