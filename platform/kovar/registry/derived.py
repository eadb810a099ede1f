"""Derived artifacts: an ONNX export, quantized weights, a compiled program of a version.

They hang on a version under a digest of their own and never change the version's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import Field, JsonValue

from kovar.config import Config, canonical_json
from kovar.errors import DamagedArtifactError
from kovar.registry.catalog import Absent, SweptError
from kovar.registry.database import Database
from kovar.registry.golden_checks import add_check, latest_checks
from kovar.registry.index import use_blobs
from kovar.registry.manifest import FileEntry, Sha256
from kovar.registry.queries import Clock, model_row, version_row
from kovar.registry.reference import Reference
from kovar.registry.schema import derived_artifacts
from kovar.registry.version import GoldenResult, Version


class DerivedManifest(Config):
    """What a derived artifact is made of; the SHA-256 of its canonical JSON identifies it."""

    version: Sha256 = Field(description="digest of the version it was made of")
    kind: str = Field(description="what it is: onnx, quantized, compiled, …")
    runtime: str = Field(description="what executes it")
    chip: str = Field(description="the chip it is made for; any when it does not matter")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="how it was made: precision, opset, …"
    )
    files: tuple[FileEntry, ...] = Field(min_length=1, description="files, sorted by path")

    def to_bytes(self) -> bytes:
        """Serialize to the bytes that the digest is computed on."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class DerivedArtifact:
    """One derived artifact of a version."""

    model: str
    number: int
    """Of the version it hangs on."""
    digest: str
    manifest: DerivedManifest
    golden: GoldenResult | None
    """Its latest golden check; None where it was not checked."""
    created_at: datetime
    created_by: str


class DerivedShelf:
    """The derived artifacts and golden checks of all versions.

    Args:
        database: where they are.
        clock: tells the time of changes.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        version: Version,
        manifest: DerivedManifest,
        *,
        golden: GoldenResult | None,
        by: str,
        absent: Absent,
    ) -> DerivedArtifact:
        """Commit an artifact whose blobs are stored; equal content is one artifact.

        Raises:
            SweptError: garbage collection took a blob before the artifact could refer to it.
        """
        now = self._clock()
        with self._database.writing() as connection:
            model_row(connection, version.model, lock=True)
            row = version_row(connection, version.model, Reference(digest=version.digest))
            self._database.keep_blobs(connection)
            if missing := absent(manifest.files):
                raise SweptError(
                    f"{len(missing)} blobs were swept", paths=[e.path for e in missing]
                )
            key = {"version_id": row.id, "digest": manifest.digest}
            same = sa.select(derived_artifacts.c.id).filter_by(**key)
            derived_id = connection.execute(same).scalar()
            if derived_id is None:
                insert = derived_artifacts.insert().values(
                    **key, manifest=manifest.to_bytes().decode(), created_at=now, created_by=by
                )
                returning = insert.returning(derived_artifacts.c.id)
                derived_id = connection.execute(returning).scalar_one()
                use_blobs(connection, row.id, {file.sha256 for file in manifest.files})
            if golden:
                add_check(connection, row.id, golden, derived_id=derived_id, at=now, by=by)
            found = _list(connection, version, row.id)
            return next(each for each in found if each.digest == manifest.digest)

    def list(self, version: Version) -> tuple[DerivedArtifact, ...]:
        """Return the derived artifacts of a version, oldest first."""
        with self._database.reading() as connection:
            row = version_row(connection, version.model, Reference(digest=version.digest))
            return tuple(_list(connection, version, row.id))

    def note(self, version: Version, result: GoldenResult, *, by: str) -> None:
        """Note a golden check of the version's own files."""
        with self._database.writing() as connection:
            model_row(connection, version.model, lock=True)
            row = version_row(connection, version.model, Reference(digest=version.digest))
            add_check(connection, row.id, result, at=self._clock(), by=by)


def _list(
    connection: sa.Connection, version: Version, version_id: int
) -> Sequence[DerivedArtifact]:
    query = sa.select(derived_artifacts).where(derived_artifacts.c.version_id == version_id)
    rows = connection.execute(query.order_by(derived_artifacts.c.id)).all()
    found = []
    for row in rows:
        manifest = _manifest_of(row, version)
        checks = latest_checks(connection, version_id, derived_id=row.id)
        found.append(
            DerivedArtifact(
                model=version.model,
                number=version.number,
                digest=row.digest,
                manifest=manifest,
                golden=checks.get(manifest.runtime),
                created_at=row.created_at,
                created_by=row.created_by,
            )
        )
    return found


def _manifest_of(row: sa.Row[Any], version: Version) -> DerivedManifest:
    """Read a manifest that must be what its digest says, and of this version."""
    manifest = DerivedManifest.model_validate_json(row.manifest)
    if manifest.digest == row.digest and manifest.version == version.digest:
        return manifest
    raise DamagedArtifactError(
        f"the manifest of what was derived from {version} does not match its digest {row.digest}",
        hint="restore the database from a backup",
        kind="manifest",
        what="the manifest of a derived artifact does not match its digest",
        sha256=row.digest,
    )
