"""`kovar models`: how versions relate: lineage and differences."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kovar.cli.display import print_json
from kovar.cli.options import JsonFlag
from kovar.settings import load_settings

Reference = Annotated[str, typer.Argument(help="name, name@alias, name@number or a digest.")]

relations = typer.Typer()


@relations.command()
def lineage(
    reference: Reference,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid chart.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a version descends from, and what descends from it."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        found = registry.lineage(registry.resolve(reference))
    if as_json:
        print_json(found)
    else:
        typer.echo(found.mermaid().rstrip() if mermaid else found.tree())


@relations.command()
def diff(before: Reference, after: Reference, as_json: JsonFlag = False) -> None:
    """Show what differs between two versions: spec, data, metrics, files, other facts."""
    from kovar.registry import Registry
    from kovar.registry import diff as compare

    with Registry.open(load_settings()) as registry:
        found = compare(registry.resolve(before), registry.resolve(after))
    if as_json:
        print_json(found)
        return
    table = Table("section", "what", found.before, found.after)
    for section, changes in found.sections().items():
        for change in changes:
            sides = ("–" if side is None else str(side) for side in (change.before, change.after))
            table.add_row(section, change.path, *sides)
    if table.row_count:
        Console().print(table)
    else:
        typer.echo(f"{found.before} and {found.after} are equal")
