"""`kovar models`: look at versions, move aliases, verify files."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from kovar.cli.options import JsonFlag
from kovar.config import format_size
from kovar.errors import UserError
from kovar.settings import load_settings

models = typer.Typer(help="The registry: versions, aliases, verification.", no_args_is_help=True)


@models.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(help="Show the versions of this one.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List models, or the versions of one."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        if model is None:
            _list_models(registry.models(), as_json=as_json)
        else:
            aliases = registry.aliases(model)
            _list_versions(registry.versions(model), aliases, as_json=as_json)


def _list_models(found: Any, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": m.name,
                "versions": m.num_versions,
                "latest": m.latest,
                "aliases": dict(m.aliases),
                "created_at": m.created_at.isoformat(),
            }
            for m in found
        ]
        typer.echo(json.dumps(rows))
        return
    table = Table("model", "versions", "latest", "aliases", "created")
    for m in found:
        aliases = ", ".join(f"{name} → {number}" for name, number in sorted(m.aliases.items()))
        table.add_row(m.name, str(m.num_versions), str(m.latest), aliases, _when(m.created_at))
    Console().print(table if found else "no models yet: kovar quickstart makes one")


def _list_versions(found: Any, aliases: Any, *, as_json: bool) -> None:
    names: dict[int, list[str]] = {}
    for alias, number in aliases.items():
        names.setdefault(number, []).append(alias)
    if as_json:
        typer.echo(json.dumps([_facts(v, names.get(v.number, [])) for v in found]))
        return
    table = Table("version", "digest", "accuracy", "precision", "aliases", "run", "created")
    for v in found:
        accuracy = v.manifest.metrics.get("evaluation", {}).get("accuracy")
        table.add_row(
            str(v.number),
            v.digest[:12],
            f"{accuracy:.4f}" if isinstance(accuracy, float) else "–",
            v.manifest.precision,
            ", ".join(sorted(names.get(v.number, []))),
            v.run or "–",
            _when(v.created_at),
        )
    Console().print(table)


def _facts(found: Any, aliases: list[str]) -> dict[str, Any]:
    return {
        "model": found.model,
        "version": found.number,
        "digest": found.digest,
        "aliases": sorted(aliases),
        "run": found.run,
        "created_at": found.created_at.isoformat(),
        "created_by": found.created_by,
        "manifest": found.manifest.model_dump(mode="json"),
    }


def _when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


@models.command()
def show(
    reference: Annotated[str, typer.Argument(help="name, name@alias, name@number or a digest.")],
    html: Annotated[
        Path | None, typer.Option(help="Write the card as an HTML page with plots into this file.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the model card of a version."""
    from kovar.registry import Registry, card, card_html

    with Registry.open(load_settings()) as registry:
        found = registry.resolve(reference)
        aliases = [a for a, n in registry.aliases(found.model).items() if n == found.number]
    if html is not None:
        try:
            html.write_text(card_html(found, aliases), encoding="utf-8")
        except OSError as problem:
            raise UserError(f"cannot write the page: {problem.strerror}", file=html) from None
    if as_json:
        typer.echo(json.dumps(_facts(found, aliases)))
        return
    if html is not None:
        typer.echo(f"{found}: {html}")
        return
    Console().print(Markdown(card(found, aliases=aliases)))


@models.command()
def alias(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    name: Annotated[str, typer.Argument(help="Name of the alias, for example champion.")],
    to: Annotated[str | None, typer.Option(help="Version that it shall point at.")] = None,
    expected: Annotated[
        str | None,
        typer.Option(help="Version that it points at now; needed unless the alias is new."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move it wherever it points.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the history of an alias, or move it (--to) by compare-and-swap."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        if to is not None:
            registry.set_alias(model, name, to, expected=expected, force=force, reason=reason)
        moves = registry.history(model, name)
    if as_json:
        rows = [{**vars(move), "moved_at": move.moved_at.isoformat()} for move in moves]
        typer.echo(json.dumps(rows))
        return
    table = Table("#", "when", "who", "from", "to", "why", title=f"{model}@{name}")
    for move in moves:
        table.add_row(
            str(move.sequence),
            _when(move.moved_at),
            move.moved_by,
            str(move.from_number or "–"),
            str(move.to_number),
            f"{'forced: ' if move.forced else ''}{move.reason or ''}",
        )
    Console().print(table)


@models.command()
def verify(
    reference: Annotated[
        str | None, typer.Argument(help="name, name@alias, name@number or a digest.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every version.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read and hash the stored files of a version; exit code 1 if one is damaged."""
    from kovar.registry import Registry

    if (reference is None) != everything:
        raise UserError("name a version, or say --all")
    with Registry.open(load_settings()) as registry:
        found = None if reference is None else registry.resolve(reference)
        problems = registry.verify(found)
    if as_json:
        typer.echo(json.dumps([vars(problem) for problem in problems]))
    else:
        for problem in problems:
            typer.echo(f"{problem.model}@{problem.number}: {problem.path}: {problem.message}")
        if not problems:
            size = f" ({format_size(found.manifest.size_bytes)})" if found else ""
            typer.echo(f"{found or 'every version'}: every file matches its digest{size}")
    if problems:
        raise typer.Exit(1)
