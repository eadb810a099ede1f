"""What the database knows: versions, aliases and their history, as questions and changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import JsonValue, ValidationError
from sqlalchemy.dialects import postgresql, sqlite

from kovar.errors import (
    ConflictError,
    DamagedArtifactError,
    NotFoundError,
    RegistryError,
    did_you_mean,
)
from kovar.registry.database import Database
from kovar.registry.manifest import Manifest
from kovar.registry.reference import Reference, parse_reference
from kovar.registry.schema import alias_history, aliases, models, tags, versions
from kovar.registry.version import AliasMove, Model, Version

Clock = Callable[[], datetime]

_VERSIONS = sa.select(versions, models.c.name.label("model")).join(models)
_ALIASES = (
    sa.select(aliases.c.model_id, aliases.c.name, versions.c.number)
    .join(versions, aliases.c.version_id == versions.c.id)
    .order_by(aliases.c.name)
)
_from, _to = versions.alias("from_version"), versions.alias("to_version")
_MOVES = (
    sa.select(
        alias_history,
        _from.c.number.label("from_number"),
        _from.c.digest.label("from_digest"),
        _to.c.number.label("to_number"),
        _to.c.digest.label("to_digest"),
    )
    .outerjoin(_from, alias_history.c.from_version_id == _from.c.id)
    .join(_to, alias_history.c.to_version_id == _to.c.id)
)


def utc_now() -> datetime:
    """Return the time of this machine, in UTC."""
    return datetime.now(UTC)


class Catalog:
    """The metadata of models.

    Args:
        database: where it is.
        clock: tells the time of changes.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def add_version(
        self,
        model: str,
        manifest: Manifest,
        *,
        created_by: str,
        run: str | None = None,
        sweep: str | None = None,
        tag_values: Mapping[str, str],
        run_facts: Mapping[str, JsonValue],
    ) -> Version:
        """Commit a version whose blobs are stored; return the existing one of equal content."""
        now = self._clock()
        with self._database.writing() as connection:
            _ensure_model(connection, model, now)
            row = _model_row(connection, model, lock=True)
            if existing := _select(connection, model, Reference(digest=manifest.digest)):
                return existing[0]
            number = row.last_number + 1
            new_version = versions.insert().values(
                model_id=row.id,
                number=number,
                digest=manifest.digest,
                manifest=manifest.to_bytes().decode(),
                run_facts=json.dumps(dict(run_facts), allow_nan=False),
                created_at=now,
                created_by=created_by,
                run=run,
                sweep=sweep,
            )
            version_id = connection.execute(new_version.returning(versions.c.id)).scalar_one()
            rows = [
                {"version_id": version_id, "key": key, "value": value}
                for key, value in tag_values.items()
            ]
            if rows:
                connection.execute(tags.insert(), rows)
            connection.execute(
                models.update().where(models.c.id == row.id).values(last_number=number)
            )
            return _select(connection, model, Reference(number=number))[0]

    def find_version(self, model: str | None, reference: Reference) -> Version:
        """Return the one version that a reference names; without a model, by digest in all.

        Raises:
            NotFoundError: no such model, version or alias, or a prefix of several digests.
        """
        with self._database.reading() as connection:
            found = _select(connection, model, reference)
            if not found:
                raise _not_found(connection, model, reference)
        if len({version.digest for version in found}) > 1:
            raise NotFoundError(
                "more than one version has a digest that begins like this",
                got=reference.digest,
                allowed=", ".join(f"{version.digest} ({version})" for version in found),
                hint="give more digits",
            )
        return found[0]

    def list_versions(self, model: str) -> tuple[Version, ...]:
        """Return all versions of a model, newest first."""
        with self._database.reading() as connection:
            found = _select(connection, model, None)
            if not found:
                raise _not_found(connection, model, None)
        return tuple(found)

    def list_numbers(self) -> list[tuple[str, int]]:
        """Return model and number of every version."""
        query = sa.select(models.c.name, versions.c.number).join(models)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(models.c.name, versions.c.number))
            return [(row.name, row.number) for row in rows]

    def list_models(self) -> tuple[Model, ...]:
        """Return all models, by name."""
        query = (
            sa.select(
                models,
                sa.func.count(versions.c.id).label("num_versions"),
                sa.func.max(versions.c.number).label("latest"),
            )
            .join(versions)
            .group_by(models.c.id)
            .order_by(models.c.name)
        )
        with self._database.reading() as connection:
            pointing: dict[int, dict[str, int]] = {}
            for row in connection.execute(_ALIASES):
                pointing.setdefault(row.model_id, {})[row.name] = row.number
            return tuple(
                Model(
                    name=row.name,
                    created_at=row.created_at,
                    num_versions=row.num_versions,
                    latest=row.latest,
                    aliases=pointing.get(row.id, {}),
                )
                for row in connection.execute(query)
            )

    def list_aliases(self, model: str) -> dict[str, int]:
        """Return alias → number of the version it points at."""
        with self._database.reading() as connection:
            model_id = _model_row(connection, model).id
            rows = connection.execute(_ALIASES.where(aliases.c.model_id == model_id))
            return {row.name: row.number for row in rows}

    def move_alias(
        self,
        model: str,
        alias: str,
        to: Reference,
        *,
        expected: str | int | None,
        force: bool,
        reason: str | None,
        by: str,
    ) -> AliasMove:
        """Move an alias if it points where the caller thinks, and write that into its history.

        Moving it to where it points already changes nothing and returns the last move.

        Raises:
            ConflictError: it points elsewhere.
            NotFoundError: no such model or target.
        """
        with self._database.writing() as connection:
            model_id = _model_row(connection, model, lock=True).id
            target = _target(connection, model, to)
            current = _last_move(connection, model_id, alias)
            if not force:
                _compare(model, alias, current, expected)
            if current and current.to_version_id == target.id:
                return _to_move(model, current)
            if current:
                here = (aliases.c.model_id == model_id) & (aliases.c.name == alias)
                connection.execute(aliases.update().where(here).values(version_id=target.id))
            else:
                connection.execute(
                    aliases.insert().values(model_id=model_id, name=alias, version_id=target.id)
                )
            move = AliasMove(
                model=model,
                alias=alias,
                sequence=current.sequence + 1 if current else 1,
                # A clock that went back must not contradict the order of the moves.
                moved_at=max(self._clock(), current.moved_at) if current else self._clock(),
                moved_by=by,
                from_number=current.to_number if current else None,
                from_digest=current.to_digest if current else None,
                to_number=target.number,
                to_digest=target.digest,
                reason=reason,
                forced=force,
            )
            connection.execute(
                alias_history.insert().values(
                    model_id=model_id,
                    alias=alias,
                    sequence=move.sequence,
                    moved_at=move.moved_at,
                    moved_by=by,
                    from_version_id=current.to_version_id if current else None,
                    to_version_id=target.id,
                    reason=reason,
                    forced=force,
                )
            )
        return move

    def list_moves(self, model: str, alias: str) -> tuple[AliasMove, ...]:
        """Return the history of an alias, oldest first."""
        with self._database.reading() as connection:
            model_id = _model_row(connection, model).id
            query = _MOVES.where(
                alias_history.c.model_id == model_id, alias_history.c.alias == alias
            )
            rows = connection.execute(query.order_by(alias_history.c.sequence)).all()
            if not rows:
                raise _not_found(connection, model, Reference(alias=alias))
            return tuple(_to_move(model, row) for row in rows)


def _ensure_model(connection: sa.Connection, model: str, now: datetime) -> None:
    values = {"name": model, "last_number": 0, "created_at": now}
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(models).values(values).on_conflict_do_nothing())
    else:
        connection.execute(sqlite.insert(models).values(values).on_conflict_do_nothing())


def _model_row(connection: sa.Connection, model: str, *, lock: bool = False) -> sa.Row[Any]:
    query = sa.select(models).where(models.c.name == model)
    # PostgreSQL holds the row until the transaction ends; SQLite has locked everything already.
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise _not_found(connection, model, None)
    return row


def _select(
    connection: sa.Connection, model: str | None, reference: Reference | None
) -> list[Version]:
    """Return the versions that match, newest first."""
    where = [] if model is None else [models.c.name == model]
    if reference is not None:
        where.append(_matches(reference))
    tags_of: dict[int, dict[str, str]] = {}
    chosen = sa.select(versions.c.id).join(models).where(*where)
    for row in connection.execute(sa.select(tags).where(tags.c.version_id.in_(chosen))):
        tags_of.setdefault(row.version_id, {})[row.key] = row.value
    rows = connection.execute(_VERSIONS.where(*where).order_by(versions.c.number.desc()))
    return [_to_version(row, tags_of.get(row.id, {})) for row in rows]


def _matches(reference: Reference) -> sa.ColumnElement[bool]:
    if reference.number is not None:
        return versions.c.number == reference.number
    if reference.digest is not None:
        # A range, because it uses the index in every database; "g" follows the last digit.
        return versions.c.digest.between(reference.digest, f"{reference.digest}g")
    return sa.exists().where(
        aliases.c.version_id == versions.c.id, aliases.c.name == reference.alias
    )


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


def _target(connection: sa.Connection, model: str, to: Reference) -> sa.Row[Any]:
    query = _VERSIONS.where(models.c.name == model, _matches(to))
    rows = connection.execute(query).all()
    if len(rows) != 1:
        raise _not_found(connection, model, to)
    return rows[0]


def _last_move(connection: sa.Connection, model_id: int, alias: str) -> sa.Row[Any] | None:
    query = _MOVES.where(alias_history.c.model_id == model_id, alias_history.c.alias == alias)
    return connection.execute(query.order_by(alias_history.c.sequence.desc()).limit(1)).first()


def _compare(
    model: str, alias: str, current: sa.Row[Any] | None, expected: str | int | None
) -> None:
    """Raise ConflictError unless the alias points at `expected`."""
    wanted = None if expected is None else parse_reference(expected)
    if current is None or wanted is None:
        agrees = current is None and wanted is None
    elif wanted.digest is not None:
        agrees = current.to_digest.startswith(wanted.digest)
    else:
        agrees = current.to_number == wanted.number
    if agrees:
        return
    points_at = "does not exist"
    if current:
        points_at = f"points at version {current.to_number} ({current.to_digest[:12]})"
    thought = "it not to exist" if expected is None else f"version {expected}"
    raise ConflictError(
        f"{model}@{alias} {points_at}; you expected {thought}",
        hint="look at the current version; then expect that one, or force the move with a reason",
        current_number=current.to_number if current else None,
        current_digest=current.to_digest if current else None,
    )


def _to_move(model: str, row: sa.Row[Any]) -> AliasMove:
    return AliasMove(
        model=model,
        alias=row.alias,
        sequence=row.sequence,
        moved_at=row.moved_at,
        moved_by=row.moved_by,
        from_number=row.from_number,
        from_digest=row.from_digest,
        to_number=row.to_number,
        to_digest=row.to_digest,
        reason=row.reason,
        forced=row.forced,
    )


def _not_found(
    connection: sa.Connection, model: str | None, reference: Reference | None
) -> NotFoundError:
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
    pointing = connection.execute(_ALIASES.where(aliases.c.model_id == row.id))
    known = [each.name for each in pointing]
    got = next(str(part) for part in reference if part is not None)
    return NotFoundError(
        f"model {model!r} has no {'version' if reference.alias is None else 'alias'} {got!r}",
        allowed=f"a version from 1 to {row.last_number}"
        + (f", an alias ({', '.join(known)})" if known else "; it has no alias yet"),
        hint=did_you_mean(got, known) or f"`kovar models show {model}` lists what there is",
    )
