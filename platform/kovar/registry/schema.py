"""The tables. A change here needs a new migration in `migrations/versions` and in `REVISIONS`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
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

REVISIONS: Final = ("0001",)
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
    UniqueConstraint("model_id", "number"),
    UniqueConstraint("model_id", "digest"),
)

tags = Table(
    "tags",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "key", "value"),
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
)
