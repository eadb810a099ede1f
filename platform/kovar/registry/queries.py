"""Questions that several parts of the registry ask the database, and how rows become objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from pydantic_core import from_json
from sqlalchemy.dialects import postgresql, sqlite

from kovar.errors import DamagedArtifactError, NotFoundError, RegistryError, did_you_mean
from kovar.registry.manifest import Manifest
from kovar.registry.reference import Reference
from kovar.registry.schema import aliases, models, tags, versions
from kovar.registry.version import Version, VersionSummary

Clock = Callable[[], datetime]

RowT = TypeVar("RowT")
MadeOf = Callable[[sa.Connection, Iterable[sa.Row[Any]]], list[RowT]]
"""Makes objects of rows of `VERSIONS`: `to_versions` or `to_summaries`."""

VERSIONS = sa.select(versions, models.c.name.label("model")).join(models)
ALIASES = (
    sa.select(aliases.c.model_id, aliases.c.name, versions.c.number)
    .join(versions, aliases.c.version_id == versions.c.id)
    .order_by(aliases.c.name)
)

_OWNER = models.alias("owner")
_POINTED_AT = sa.select(aliases.c.version_id).join(_OWNER, aliases.c.model_id == _OWNER.c.id)
_MODEL: Final = sa.bindparam("model", type_=sa.String)
_NAMED: Final = {
    "number": versions.c.number == sa.bindparam("number"),
    # A range, because it uses the index in every database; "g" follows the last digit.
    "digest": versions.c.digest.between(sa.bindparam("digest"), sa.bindparam("digest_end")),
    "alias": versions.c.id.in_(
        _POINTED_AT.where(_OWNER.c.name == _MODEL, aliases.c.name == sa.bindparam("alias"))
    ),
}
_TAGS_OF: Final = sa.select(tags).where(
    tags.c.version_id.in_(sa.bindparam("version_ids", expanding=True))
)

MANIFESTS_KEPT: Final = 256
"""Parsed manifests that a process keeps; of the usual size they take some 20 MB together."""


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
    rows = named_rows(connection, model, reference, deleted=None if deleted else False)
    if len(rows) != 1:
        raise not_found(connection, model, reference)
    return rows[0]


def named_rows(
    connection: sa.Connection, model: str | None, reference: Reference, *, deleted: bool | None
) -> Sequence[sa.Row[Any]]:
    """Return the rows that a reference names, the highest number first.

    Args:
        connection: of a transaction.
        model: name of the model; None for all models.
        reference: what names them.
        deleted: whether they were deleted; None for either.
    """
    kind = next(name for name, value in reference._asdict().items() if value is not None)
    values = {kind: getattr(reference, kind)}
    if kind == "digest":
        values["digest_end"] = f"{reference.digest}g"
    if model is not None:
        values["model"] = model
    return connection.execute(_naming(kind, model is not None, deleted), values).all()


@cache
def _naming(kind: str, of_one_model: bool, deleted: bool | None) -> sa.Select[Any]:
    """Build the query behind `named_rows` once: building takes longer than asking."""
    query = VERSIONS.where(_NAMED[kind])
    if of_one_model:
        query = query.where(models.c.name == _MODEL)
    if deleted is not None:
        gone = versions.c.deleted_at
        query = query.where(gone.is_not(None) if deleted else gone.is_(None))
    return query.order_by(versions.c.number.desc())


def to_versions(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[Version]:
    """Turn rows of `VERSIONS` into versions, with their tags."""
    rows = list(rows)
    tags_of = _tags_of(connection, rows)
    return [_to_version(row, tags_of.get(row.id, {})) for row in rows]


def to_summaries(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[VersionSummary]:
    """Turn rows of `VERSIONS` into the rows of a page, with their tags.

    The manifests are compared with their digests, as those of whole versions are, but of what
    they hold only the part that a page shows becomes objects: the packages of the environment
    are most of a manifest.
    """
    rows = list(rows)
    tags_of = _tags_of(connection, rows)
    found = []
    for row in rows:
        _check_digest(row)
        manifest = from_json(row.manifest)
        found.append(
            VersionSummary(
                model=row.model,
                number=row.number,
                digest=row.digest,
                created_at=row.created_at,
                created_by=row.created_by,
                run=row.run,
                sweep=row.sweep,
                tags=tags_of.get(row.id, {}),
                method=manifest["method"],
                precision=manifest["precision"],
                metrics=manifest["metrics"],
            )
        )
    return found


def _tags_of(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    chosen = {"version_ids": [row.id for row in rows]}
    for row in connection.execute(_TAGS_OF, chosen) if rows else ():
        found.setdefault(row.version_id, {})[row.key] = row.value
    return found


def _check_digest(row: sa.Row[Any]) -> None:
    if hashlib.sha256(row.manifest.encode()).hexdigest() != row.digest:
        raise DamagedArtifactError(
            f"the manifest of {row.model}@{row.number} does not match its digest {row.digest}",
            hint="the database was altered: restore it from a backup",
            kind="manifest",
            what="the manifest does not match its digest",
            sha256=row.digest,
        )


@lru_cache(maxsize=MANIFESTS_KEPT)
def _parse(manifest: str) -> Manifest:
    return Manifest.model_validate_json(manifest)


def _to_version(row: sa.Row[Any], tag_values: Mapping[str, str]) -> Version:
    _check_digest(row)
    try:
        manifest = _parse(row.manifest)
    except ValidationError as problem:
        raise RegistryError(
            f"the manifest of {row.model}@{row.number} has fields that this Kovar does not know "
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
    rows = named_rows(connection, model, reference, deleted=True)
    if not rows:
        return None
    row = rows[0]
    return NotFoundError(
        f"{row.model}@{row.number} was deleted by {row.deleted_by} on "
        f"{row.deleted_at:%Y-%m-%d %H:%M} UTC: {row.delete_reason}",
        hint="register the same content again to have it back under its number",
    )
