"""Where aliases point, where they pointed, and what protects them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from kovar.errors import ConflictError, NotFoundError
from kovar.registry.database import Database
from kovar.registry.gates import Gates
from kovar.registry.golden_checks import latest_checks
from kovar.registry.queries import (
    ALIASES,
    Clock,
    ensure_model,
    model_row,
    not_found,
    to_versions,
    utc_now,
    version_row,
)
from kovar.registry.reference import Reference, parse_reference
from kovar.registry.schema import alias_history, aliases, approvals, gate_declarations, versions
from kovar.registry.version import AliasMove, GateResult, GoldenResult, Version

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

Action = Literal["move", "promotion", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """All that decides whether an alias may move to a version, as the database has it."""

    target: Version
    last_move: AliasMove | None
    incumbent: Version | None
    """The version that the alias points at."""
    gates: Gates | None
    declaration: int
    """Which declaration of the gates this is; 0 where none was made."""
    golden: Mapping[str, GoldenResult]
    """Runtime → its latest check of the target."""
    approvers: tuple[str, ...]


class AliasBook:
    """Aliases, their history, their gates and approvals.

    Args:
        database: where they are.
        clock: tells the time of changes.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def list_aliases(self, model: str) -> dict[str, int]:
        """Return alias → number of the version it points at."""
        with self._database.reading() as connection:
            model_id = model_row(connection, model).id
            rows = connection.execute(ALIASES.where(aliases.c.model_id == model_id))
            return {row.name: row.number for row in rows}

    def look(self, model: str, alias: str, to: Reference) -> Standing:
        """Return what a decision to move an alias stands on.

        Raises:
            NotFoundError: no such model or target.
        """
        with self._database.reading() as connection:
            model_id = model_row(connection, model).id
            target = version_row(connection, model, to)
            last = _last_move(connection, model_id, alias)
            found = [target]
            if last and last.to_version_id != target.id:
                incumbent = Reference(number=last.to_number)
                found.append(version_row(connection, model, incumbent, deleted=True))
            made = to_versions(connection, found)
            number, gates = _gates(connection, model_id, alias)
            approved = sa.select(approvals.c.approved_by).where(
                approvals.c.version_id == target.id, approvals.c.alias == alias
            )
            return Standing(
                target=made[0],
                last_move=_to_move(model, last) if last else None,
                incumbent=made[-1] if last else None,
                gates=gates,
                declaration=number,
                golden=latest_checks(connection, target.id),
                approvers=tuple(sorted(connection.execute(approved).scalars())),
            )

    def move(
        self,
        model: str,
        alias: str,
        to: Reference,
        *,
        expected: str | int | None,
        force: bool,
        reason: str | None,
        by: str,
        action: Action = "move",
        declaration: int | None = None,
        results: Sequence[GateResult] = (),
    ) -> AliasMove:
        """Move an alias if it points where the caller thinks, and write that into its history.

        Moving it to where it points already changes nothing and returns the last move.

        Args:
            model: name of the model.
            alias: name of the alias.
            to: the target.
            expected: where it points now.
            force: move it wherever it points.
            reason: why.
            by: who.
            action: what to call it in the history.
            declaration: of the gates that were asked; None where none had to be.
            results: what they found.

        Raises:
            ConflictError: it points elsewhere, or other gates were declared meanwhile.
            NotFoundError: no such model or target.
        """
        with self._database.writing() as connection:
            model_id = model_row(connection, model, lock=True).id
            target = version_row(connection, model, to)
            current = _last_move(connection, model_id, alias)
            if not force:
                compare(model, alias, _to_move(model, current) if current else None, expected)
            if current and current.to_version_id == target.id:
                return _to_move(model, current)
            if declaration is not None and _gates(connection, model_id, alias)[0] != declaration:
                raise ConflictError(
                    f"other gates were declared for {model}@{alias} meanwhile",
                    hint="promote again, through the gates of now",
                )
            if current:
                here = (aliases.c.model_id == model_id) & (aliases.c.name == alias)
                connection.execute(aliases.update().where(here).values(version_id=target.id))
            else:
                connection.execute(
                    aliases.insert().values(model_id=model_id, name=alias, version_id=target.id)
                )
            now = self._clock()
            move = AliasMove(
                model=model,
                alias=alias,
                sequence=current.sequence + 1 if current else 1,
                # A clock that went back must not contradict the order of the moves.
                moved_at=max(now, current.moved_at) if current else now,
                moved_by=by,
                from_number=current.to_number if current else None,
                from_digest=current.to_digest if current else None,
                to_number=target.number,
                to_digest=target.digest,
                reason=reason,
                forced=force,
                action=action,
                gates=tuple(results),
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
                    action=action,
                    gates=json.dumps([asdict(each) for each in results]) if results else None,
                )
            )
        return move

    def list_moves(self, model: str, alias: str) -> tuple[AliasMove, ...]:
        """Return the history of an alias, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                _of(model_row(connection, model).id, alias).order_by(alias_history.c.sequence)
            ).all()
            if not rows:
                raise not_found(connection, model, Reference(alias=alias))
            return tuple(_to_move(model, row) for row in rows)

    def move_at(self, model: str, alias: str, time: datetime) -> AliasMove:
        """Return the move that an alias stood on at a time.

        Raises:
            NotFoundError: no such model or alias, or it did not exist yet.
        """
        with self._database.reading() as connection:
            query = _of(model_row(connection, model).id, alias)
            newest_first = query.order_by(alias_history.c.sequence.desc()).limit(1)
            until = newest_first.where(alias_history.c.moved_at <= time)
            if row := connection.execute(until).first():
                return _to_move(model, row)
            first = connection.execute(query.order_by(alias_history.c.sequence).limit(1)).first()
            if first is None:
                raise not_found(connection, model, Reference(alias=alias))
        raise NotFoundError(
            f"{model}@{alias} did not exist then",
            got=time.isoformat(),
            allowed=f"{first.moved_at.isoformat()} or later",
        )

    def declare(
        self, model: str, alias: str, gates: Gates | None, *, reason: str | None, by: str
    ) -> None:
        """Declare the gates of an alias; None takes them away."""
        now = self._clock()
        with self._database.writing() as connection:
            ensure_model(connection, model, now)
            model_id = model_row(connection, model, lock=True).id
            number, _ = _gates(connection, model_id, alias)
            connection.execute(
                gate_declarations.insert().values(
                    model_id=model_id,
                    alias=alias,
                    sequence=number + 1,
                    gates=gates.model_dump_json(exclude_defaults=True) if gates else None,
                    declared_at=now,
                    declared_by=by,
                    reason=reason,
                )
            )

    def gates(self, model: str, alias: str) -> Gates | None:
        """Return the gates of an alias, or None where none are declared."""
        with self._database.reading() as connection:
            return _gates(connection, model_row(connection, model).id, alias)[1]

    def approve(
        self, model: str, alias: str, reference: Reference, *, comment: str | None, by: str
    ) -> None:
        """Note that a person approves of a version for an alias; once is enough."""
        now = self._clock()
        with self._database.writing() as connection:
            model_row(connection, model, lock=True)
            row = version_row(connection, model, reference)
            key = {"version_id": row.id, "alias": alias, "approved_by": by}
            if not connection.execute(sa.select(approvals).filter_by(**key)).first():
                connection.execute(
                    approvals.insert().values(**key, approved_at=now, comment=comment)
                )


def compare(model: str, alias: str, current: AliasMove | None, expected: str | int | None) -> None:
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


def previous(history: Sequence[AliasMove]) -> AliasMove | None:
    """Return the move that a rollback goes back to, or None where there is none.

    Rollbacks undo one by one: after moves to 1, 2 and 3 the first goes to 2, the next to 1.

    Args:
        history: every move of the alias, oldest first.
    """
    standing: list[AliasMove] = []
    for move in history:
        if move.action == "rollback":
            standing.pop()
        else:
            standing.append(move)
    return standing[-2] if len(standing) > 1 else None


def _of(model_id: int, alias: str) -> sa.Select[Any]:
    return _MOVES.where(alias_history.c.model_id == model_id, alias_history.c.alias == alias)


def _last_move(connection: sa.Connection, model_id: int, alias: str) -> sa.Row[Any] | None:
    query = _of(model_id, alias).order_by(alias_history.c.sequence.desc()).limit(1)
    return connection.execute(query).first()


def _gates(connection: sa.Connection, model_id: int, alias: str) -> tuple[int, Gates | None]:
    query = sa.select(gate_declarations).where(
        gate_declarations.c.model_id == model_id, gate_declarations.c.alias == alias
    )
    newest = query.order_by(gate_declarations.c.sequence.desc()).limit(1)
    row = connection.execute(newest).first()
    if row is None:
        return 0, None
    return row.sequence, Gates.model_validate_json(row.gates) if row.gates else None


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
        action=row.action,
        gates=tuple(GateResult(**each) for each in json.loads(row.gates or "[]")),
    )
