"""`kovar models`: move aliases through their gates, back again, and look at their history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kovar.cli.display import gates_table, moves_table, parse_moment, print_json
from kovar.cli.options import JsonFlag
from kovar.settings import load_settings

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Alias = Annotated[str, typer.Option("--alias", help="Name of the alias.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]

aliases = typer.Typer()


@aliases.command()
def alias(
    model: Model,
    name: Annotated[str, typer.Argument(help="Name of the alias, for example champion.")],
    to: Annotated[str | None, typer.Option(help="Version that it shall point at.")] = None,
    expected: Annotated[
        str | None,
        typer.Option(help="Version that it points at now; needed unless the alias is new."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move it wherever it points, past its gates.")
    ] = False,
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
        print_json(moves)
    else:
        Console().print(moves_table(f"{model}@{name}", moves))


@aliases.command()
def promote(
    model: Model,
    to: Annotated[str, typer.Argument(help="Version to promote: number, digest or alias.")],
    reason: Reason,
    alias: Alias = "champion",
    expected: Annotated[
        str | None,
        typer.Option(help="Version that it points at now; needed unless the alias is new."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the gates and move nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias at a version that passes its gates; exit code 1 if a gate refuses."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        if dry_run:
            results = registry.check_gates(model, alias, to)
        else:
            move = registry.promote(model, alias, to=to, expected=expected, reason=reason)
            results = move.gates
    if as_json:
        print_json(results if dry_run else move)
    else:
        if results:
            Console().print(gates_table(results))
        if not dry_run:
            Console().print(moves_table(f"{model}@{alias}", (move,)))
        elif not results:
            Console().print(f"{model}@{alias} has no gates that would be asked")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@aliases.command()
def rollback(
    model: Model,
    reason: Reason,
    alias: Alias = "champion",
    expected: Annotated[
        str | None, typer.Option(help="Version that it points at now; wherever, if absent.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias back at the version before."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        move = registry.rollback(model, alias, reason=reason, expected=expected)
    if as_json:
        print_json(move)
    else:
        Console().print(moves_table(f"{model}@{alias}", (move,)))


@aliases.command()
def history(
    model: Model,
    name: Annotated[str, typer.Argument(help="Name of the alias.")] = "champion",
    at: Annotated[
        str | None, typer.Option(help="Only where it pointed then: 2026-05-03T10:00")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show where an alias pointed, when, by whom and why."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        moves = (
            registry.history(model, name)
            if at is None
            else (registry.at(model, name, parse_moment(at)),)
        )
    if as_json:
        print_json(moves)
    else:
        Console().print(moves_table(f"{model}@{name}", moves))


@aliases.command()
def gates(
    model: Model,
    alias: Alias = "champion",
    file: Annotated[Path | None, typer.Option(help="YAML file of gates to declare.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the gates away.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why they change.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the gates of an alias, or declare them from a file."""
    import yaml

    from kovar.config import load_yaml
    from kovar.registry import Gates, Registry

    with Registry.open(load_settings()) as registry:
        if file is not None or clear:
            declared = load_yaml(file, Gates) if file is not None else None
            registry.declare_gates(model, declared, alias=alias, reason=reason)
        found = registry.gates(model, alias)
    if as_json:
        print_json(found)
    elif found is None:
        typer.echo(f"{model}@{alias} has no gates: every version may become it")
    else:
        facts = found.model_dump(mode="json", exclude_defaults=True)
        typer.echo(yaml.safe_dump(facts, sort_keys=False).rstrip())


@aliases.command()
def approve(
    model: Model,
    to: Annotated[str, typer.Argument(help="Version: number or digest.")],
    alias: Alias = "champion",
    comment: Annotated[str | None, typer.Option(help="What you looked at.")] = None,
) -> None:
    """Approve of a version, where the gates want a second person."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        registry.approve(model, to, alias=alias, comment=comment)
        typer.echo(f"{registry.version(model, to)} is approved for {alias}")
