"""How commands show moments, versions and moves: tables for people, JSON for scripts."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from kovar.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from kovar.registry import AliasMove, GateResult, Version


def when(moment: datetime) -> str:
    """Show a moment in the user's time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M %Z")


def parse_moment(text: str) -> datetime:
    """Read ISO 8601; without a zone it is the user's.

    Raises:
        UserError: not a moment.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UserError(
            "not a moment", field="--at", got=text, allowed="ISO 8601, such as 2026-05-03T10:00"
        ) from None


def print_json(value: Any) -> None:
    """Print JSON, moments as ISO 8601."""
    typer.echo(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return vars(value)


def version_facts(found: Version, aliases: list[str]) -> dict[str, Any]:
    """Return what `--json` says of a version."""
    return {
        "model": found.model,
        "version": found.number,
        "digest": found.digest,
        "aliases": sorted(aliases),
        "run": found.run,
        "sweep": found.sweep,
        "tags": dict(found.tags),
        "created_at": found.created_at.isoformat(),
        "created_by": found.created_by,
        "manifest": found.manifest.model_dump(mode="json"),
    }


def moves_table(title: str, moves: tuple[AliasMove, ...]) -> Table:
    """Show moves of an alias."""
    from rich.table import Table

    table = Table("#", "when", "who", "from", "to", "how", "why", title=title)
    for move in moves:
        table.add_row(
            str(move.sequence),
            when(move.moved_at),
            move.moved_by,
            str(move.from_number or "–"),
            str(move.to_number),
            "forced" if move.forced else move.action,
            move.reason or "",
        )
    return table


def gates_table(results: tuple[GateResult, ...]) -> Table:
    """Show what gates found."""
    from rich.table import Table

    table = Table("gate", "passed", "found")
    for result in results:
        table.add_row(result.gate, "yes" if result.passed else "no", result.message)
    return table
