"""The tables. A change here needs a new migration in `migrations/versions` and in `REVISIONS`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

REVISIONS: Final = ("0001", "0002")
"""Every schema that this Kovar can migrate from; it works with the last."""

VERSION_TABLE: Final = "kovar_schema"
"""Names the revision of the database; not Alembic's default, which other tools use too."""


class Instant(TypeDecorator[datetime]):
    """A moment as ISO 8601 text in UTC, of fixed width: it sorts by time in every database."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        """Write the moment."""
        return None if value is None else format_instant(value)

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        """Read the moment."""
        return None if value is None else datetime.fromisoformat(value)


def format_instant(value: datetime) -> str:
    """Show a moment: 2026-05-03T10:00:00.000000Z."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    # Numbers are never given twice, so they are counted, not computed from the rows.
    Column("last_number", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    # The very bytes that were hashed; never parsed and written again.
    Column("manifest", Text, nullable=False),
    Column("run_facts", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("run", Text, index=True),
    Column("sweep", Text, index=True),
    # A deleted version keeps its row: the history names it, and its number is never given again.
    Column("deleted_at", Instant),
    Column("deleted_by", Text),
    Column("delete_reason", Text),
    UniqueConstraint("model_id", "number"),
    UniqueConstraint("model_id", "digest"),
    Index(None, "model_id", "deleted_at", "number"),
    Index(None, "deleted_at", "id"),
)

tags = Table(
    "tags",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "key", "value", "version_id"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False, index=True),
)

alias_history = Table(
    "alias_history",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("alias", String(128), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("moved_at", Instant, nullable=False),
    Column("moved_by", Text, nullable=False),
    Column("from_version_id", ForeignKey("versions.id")),
    Column("to_version_id", ForeignKey("versions.id"), nullable=False),
    Column("reason", Text),
    Column("forced", Boolean, nullable=False),
    Column("action", String(16), nullable=False, server_default="move"),
    # What the gates found, as JSON; null where no gate was declared, or none was asked.
    Column("gates", Text),
)

gate_declarations = Table(
    "gate_declarations",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("alias", String(128), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    # Null where the gates were taken away.
    Column("gates", Text),
    Column("declared_at", Instant, nullable=False),
    Column("declared_by", Text, nullable=False),
    Column("reason", Text),
)

approvals = Table(
    "approvals",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("alias", String(128), primary_key=True),
    Column("approved_by", String(256), primary_key=True),
    Column("approved_at", Instant, nullable=False),
    Column("comment", Text),
)

derived_artifacts = Table(
    "derived_artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    UniqueConstraint("version_id", "digest"),
)

golden_checks = Table(
    "golden_checks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    # Null for a check of the version's own files.
    Column("derived_id", ForeignKey("derived_artifacts.id"), index=True),
    Column("runtime", String(64), nullable=False),
    Column("chip", Text, nullable=False),
    Column("passed", Boolean, nullable=False),
    # Null where the answers could not be compared.
    Column("difference", Float),
    Column("tolerance", Float, nullable=False),
    Column("checked_at", Instant, nullable=False),
    Column("checked_by", Text, nullable=False),
    Index(None, "version_id", "runtime", "id"),
)

# What follows repeats parts of the manifests, as rows that an index finds; see `index.py`.

parents = Table(
    "parents",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("role", String(16), primary_key=True),
    Index(None, "digest", "version_id"),
)

version_metrics = Table(
    "version_metrics",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("dataset", String(256), primary_key=True),
    Column("metric", String(256), primary_key=True),
    Column("value", Float, nullable=False),
    Index(None, "dataset", "metric", "value", "version_id"),
)

version_words = Table(
    "version_words",
    metadata,
    Column("word", String(64), primary_key=True),
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
)

blob_uses = Table(
    "blob_uses",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
)
