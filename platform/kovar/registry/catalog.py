"""The versions and models that the database knows, as questions and changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
from pydantic import JsonValue

from kovar.errors import NotFoundError, RegistryError
from kovar.registry.database import Database
from kovar.registry.index import index_version
from kovar.registry.manifest import FileEntry, Manifest
from kovar.registry.queries import (
    ALIASES,
    VERSIONS,
    Clock,
    MadeOf,
    RowT,
    ensure_model,
    model_row,
    named_rows,
    not_found,
    to_versions,
    utc_now,
    version_row,
)
from kovar.registry.reference import Reference
from kovar.registry.schema import aliases, models, parents, tags, versions
from kovar.registry.version import Model, Version

Absent = Callable[[Sequence[FileEntry]], list[FileEntry]]
"""Says which of some files have no blob in the artifact store."""


class SweptError(RegistryError):
    """Blobs that a version needs were swept between their upload and the commit."""


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
        absent: Absent,
    ) -> Version:
        """Commit a version whose blobs are stored; return the existing one of equal content.

        Raises:
            SweptError: garbage collection took a blob before the version could refer to it.
            NotFoundError: a parent was deleted.
        """
        now = self._clock()
        with self._database.writing() as connection:
            ensure_model(connection, model, now)
            row = model_row(connection, model, lock=True)
            same = (versions.c.model_id == row.id) & (versions.c.digest == manifest.digest)
            existing = connection.execute(VERSIONS.where(same)).first()
            if existing and existing.deleted_at is None:
                return to_versions(connection, [existing])[0]
            self._database.keep_blobs(connection)
            if missing := absent(manifest.files):
                raise SweptError(
                    f"{len(missing)} blobs were swept", paths=[e.path for e in missing]
                )
            _check_parents(connection, manifest)
            if existing:
                back = {"deleted_at": None, "deleted_by": None, "delete_reason": None}
                connection.execute(versions.update().where(same).values(back))
                return to_versions(connection, [existing])[0]
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
            index_version(
                connection,
                version_id,
                manifest.model_dump(mode="json"),
                model=model,
                run=run,
                sweep=sweep,
                tags=tag_values,
            )
            connection.execute(
                models.update().where(models.c.id == row.id).values(last_number=number)
            )
            made = connection.execute(VERSIONS.where(versions.c.id == version_id))
            return to_versions(connection, made)[0]

    def delete_version(self, model: str, reference: Reference, *, reason: str, by: str) -> Version:
        """Hide a version; its files go with a later garbage collection.

        Raises:
            RegistryError: an alias points at it, or a version descends from it.
            NotFoundError: no such version.
        """
        with self._database.writing() as connection:
            model_row(connection, model, lock=True)
            row = version_row(connection, model, reference)
            # Whoever registers a child locks the parent too.
            connection.execute(
                sa.select(versions.c.id).where(versions.c.id == row.id).with_for_update()
            )
            pointing = sa.select(aliases.c.name).where(aliases.c.version_id == row.id)
            if names := sorted(connection.execute(pointing).scalars()):
                raise RegistryError(
                    f"{model}@{row.number} is not deleted: {', '.join(names)} points at it",
                    hint="move the alias first",
                    aliases=names,
                )
            if children := _living_children(connection, row.digest):
                raise RegistryError(
                    f"{model}@{row.number} is not deleted: {', '.join(children[:5])} "
                    f"{'descend' if len(children) > 1 else 'descends'} from it",
                    hint="delete the children first",
                    children=children,
                )
            gone = {"deleted_at": self._clock(), "deleted_by": by, "delete_reason": reason}
            connection.execute(versions.update().where(versions.c.id == row.id).values(gone))
            return to_versions(connection, [row])[0]

    def find_version(self, model: str | None, reference: Reference) -> Version:
        """Return the one version that a reference names; without a model, by digest in all.

        Raises:
            NotFoundError: no such model, version or alias, or a prefix of several digests.
        """
        with self._database.reading() as connection:
            rows = named_rows(connection, model, reference, deleted=False)
            found = to_versions(connection, rows)
            if not found:
                raise not_found(connection, model, reference)
        if len({version.digest for version in found}) > 1:
            raise NotFoundError(
                "more than one version has a digest that begins like this",
                got=reference.digest,
                allowed=", ".join(f"{version.digest} ({version})" for version in found),
                hint="give more digits",
            )
        return found[0]

    def list_versions(
        self, model: str, *, made: MadeOf[RowT], limit: int | None = None, before: int | None = None
    ) -> tuple[RowT, ...]:
        """Return versions of a model, newest first, as `to_versions` or `to_summaries` makes them.

        Raises:
            NotFoundError: no such model.
        """
        with self._database.reading() as connection:
            row = model_row(connection, model)
            query = VERSIONS.where(versions.c.model_id == row.id, versions.c.deleted_at.is_(None))
            if before is not None:
                query = query.where(versions.c.number < before)
            rows = connection.execute(query.order_by(versions.c.number.desc()).limit(limit))
            return tuple(made(connection, rows))

    def list_numbers(self) -> list[tuple[str, int]]:
        """Return model and number of every version."""
        query = sa.select(models.c.name, versions.c.number).join(models)
        query = query.where(versions.c.deleted_at.is_(None))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(models.c.name, versions.c.number))
            return [(row.name, row.number) for row in rows]

    def list_models(
        self, *, limit: int | None = None, after: str | None = None
    ) -> tuple[Model, ...]:
        """Return models by name."""
        page = sa.select(models).where(models.c.name > (after or ""), models.c.last_number > 0)
        page = page.order_by(models.c.name).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(page).all()
            chosen = [row.id for row in rows]
            counts = (
                sa.select(
                    versions.c.model_id,
                    sa.func.count().label("num_versions"),
                    sa.func.max(versions.c.number).label("latest"),
                )
                .where(versions.c.model_id.in_(chosen), versions.c.deleted_at.is_(None))
                .group_by(versions.c.model_id)
            )
            counted = {row.model_id: row for row in connection.execute(counts)}
            pointing: dict[int, dict[str, int]] = {}
            for row in connection.execute(ALIASES.where(aliases.c.model_id.in_(chosen))):
                pointing.setdefault(row.model_id, {})[row.name] = row.number
            return tuple(
                Model(
                    name=row.name,
                    created_at=row.created_at,
                    num_versions=counted[row.id].num_versions if row.id in counted else 0,
                    latest=counted[row.id].latest if row.id in counted else row.last_number,
                    aliases=pointing.get(row.id, {}),
                )
                for row in rows
            )


def _check_parents(connection: sa.Connection, manifest: Manifest) -> None:
    """Raise unless each parent that the registry knows is there; keep it there till the commit."""
    for digest in sorted({parent.digest for parent in manifest.parents}):
        query = sa.select(versions.c.deleted_at).where(versions.c.digest == digest)
        rows = connection.execute(query.order_by(versions.c.id).with_for_update()).all()
        if rows and all(row.deleted_at for row in rows):
            raise not_found(connection, None, Reference(digest=digest))


def _living_children(connection: sa.Connection, digest: str) -> list[str]:
    query = (
        sa.select(models.c.name, versions.c.number)
        .select_from(parents)
        .join(versions, parents.c.version_id == versions.c.id)
        .join(models)
        .where(parents.c.digest == digest, versions.c.deleted_at.is_(None))
        .order_by(models.c.name, versions.c.number)
    )
    return [f"{row.name}@{row.number}" for row in connection.execute(query)]
