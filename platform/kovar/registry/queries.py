"""Questions that several parts of the registry ask the database, and how rows become objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects import postgresql, sqlite

from kovar.errors import DamagedArtifactError, NotFoundError, RegistryError, did_you_mean
from kovar.registry.manifest import Manifest
from kovar.registry.reference import Reference
from kovar.registry.schema import aliases, models, tags, versions
from kovar.registry.version import Version

Clock = Callable[[], datetime]

VERSIONS = sa.select(versions, models.c.name.label("model")).join(models)
ALIASES = (
    sa.select(aliases.c.model_id, aliases.c.name, versions.c.number)
    .join(versions, aliases.c.version_id == versions.c.id)
    .order_by(aliases.c.name)
)

_OWNER = models.alias("owner")
_POINTED_AT = sa.select(aliases.c.version_id).join(_OWNER, aliases.c.model_id == _OWNER.c.id)


def utc_now() -> datetime:
    """Return the time of this machine, in UTC."""
    return datetime.now(UTC)


def ensure_model(connection: sa.Connection, model: str, now: datetime) -> None:
    """Create a model unless it exists."""
    values = {"name": model, "last_number": 0, "created_at": now}
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(models).values(values).on_conflict_do_nothing())
    else:
        connection.execute(sqlite.insert(models).values(values).on_conflict_do_nothing())


def model_row(connection: sa.Connection, model: str, *, lock: bool = False) -> sa.Row[Any]:
    """Return the row of a model.

    Raises:
        NotFoundError: no such model.
    """
    query = sa.select(models).where(models.c.name == model)
    # PostgreSQL holds the row until the transaction ends; SQLite has locked everything already.
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise not_found(connection, model, None)
    return row


def version_row(
    connection: sa.Connection, model: str, reference: Reference, *, deleted: bool = False
) -> sa.Row[Any]:
    """Return the row of one version.

    Raises:
        NotFoundError: no such model or version, or a prefix of several digests.
    """
    query = VERSIONS.where(models.c.name == model, matches(model, reference))
    if not deleted:
        query = query.where(versions.c.deleted_at.is_(None))
    rows = connection.execute(query).all()
    if len(rows) != 1:
        raise not_found(connection, model, reference)
    return rows[0]


def matches(model: str | None, reference: Reference) -> sa.ColumnElement[bool]:
    """Return the condition that a version is the one that a reference to a model names."""
    if reference.number is not None:
        return versions.c.number == reference.number
    if reference.digest is not None:
        # A range, because it uses the index in every database; "g" follows the last digit.
        return versions.c.digest.between(reference.digest, f"{reference.digest}g")
    pointed_at = _POINTED_AT.where(_OWNER.c.name == model, aliases.c.name == reference.alias)
    return versions.c.id.in_(pointed_at)


def to_versions(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[Version]:
    """Turn rows of `VERSIONS` into versions, with their tags."""
    rows = list(rows)
    tags_of: dict[int, dict[str, str]] = {}
    chosen = sa.select(tags).where(tags.c.version_id.in_([row.id for row in rows]))
    for row in connection.execute(chosen) if rows else ():
        tags_of.setdefault(row.version_id, {})[row.key] = row.value
    return [_to_version(row, tags_of.get(row.id, {})) for row in rows]


def _to_version(row: sa.Row[Any], tag_values: Mapping[str, str]) -> Version:
    name = f"{row.model}@{row.number}"
    if hashlib.sha256(row.manifest.encode()).hexdigest() != row.digest:
        raise DamagedArtifactError(
            f"the manifest of {name} does not match its digest {row.digest}",
            hint="the database was altered: restore it from a backup",
            kind="manifest",
            what="the manifest does not match its digest",
            sha256=row.digest,
        )
    try:
        manifest = Manifest.model_validate_json(row.manifest)
    except ValidationError as problem:
        raise RegistryError(
            f"the manifest of {name} has fields that this Kovar does not know "
            f"({problem.error_count()})",
            hint="upgrade Kovar: pip install --upgrade kovar-platform",
        ) from None
    return Version(
        model=row.model,
        number=row.number,
        digest=row.digest,
        manifest=manifest,
        created_at=row.created_at,
        created_by=row.created_by,
        run=row.run,
        sweep=row.sweep,
        tags=tag_values,
        run_facts=json.loads(row.run_facts),
    )


def not_found(
    connection: sa.Connection, model: str | None, reference: Reference | None
) -> NotFoundError:
    """Build the error for a reference that names nothing, with what there is instead."""
    if reference is not None and (deleted := _deleted(connection, model, reference)):
        return deleted
    if model is None:
        return NotFoundError(
            "no version has this digest", got=reference.digest if reference else None
        )
    names = list(connection.execute(sa.select(models.c.name).order_by(models.c.name)).scalars())
    if model not in names or reference is None:
        return NotFoundError(
            f"no model {model!r} in the registry",
            allowed=", ".join(names[:20]) or None,
            hint=did_you_mean(model, names)
            or ("choose one of these" if names else "nothing is registered yet: run a job first"),
        )
    row = connection.execute(sa.select(models).where(models.c.name == model)).one()
    pointing = connection.execute(ALIASES.where(aliases.c.model_id == row.id))
    known = [each.name for each in pointing]
    got = next(str(part) for part in reference if part is not None)
    return NotFoundError(
        f"model {model!r} has no {'version' if reference.alias is None else 'alias'} {got!r}",
        allowed=f"a version from 1 to {row.last_number}"
        + (f", an alias ({', '.join(known)})" if known else "; it has no alias yet"),
        hint=did_you_mean(got, known) or f"`kovar models show {model}` lists what there is",
    )


def _deleted(
    connection: sa.Connection, model: str | None, reference: Reference
) -> NotFoundError | None:
    where = [matches(model, reference), versions.c.deleted_at.is_not(None)]
    if model is not None:
        where.append(models.c.name == model)
    row = connection.execute(VERSIONS.where(*where).limit(1)).first()
    if row is None:
        return None
    return NotFoundError(
        f"{row.model}@{row.number} was deleted by {row.deleted_by} on "
        f"{row.deleted_at:%Y-%m-%d %H:%M} UTC: {row.delete_reason}",
        hint="register the same content again to have it back under its number",
    )
