"""`kovar cluster`: check the files that declare clusters, and rehearse them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kovar.cli.display import print_json
from kovar.cli.options import JsonFlag
from kovar.cli.simulation import local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kovar.resources.lint import Finding

clusters = typer.Typer(help="Check and rehearse declared clusters.", no_args_is_help=True)
clusters.command("local")(local)


@clusters.command()
def lint(
    files: Annotated[list[Path], typer.Argument(help="cluster.yaml files or KubeRay manifests.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Also refuse what is left to fill in.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what is wrong or surprising in cluster files; exit with 2 when there is an error."""
    from kovar.resources.lint import lint_cluster, unfilled

    found = {file: lint_cluster(file) for file in files}
    left = {file: unfilled(file) for file in files}
    num_errors = sum(one.severity == "error" for each in found.values() for one in each)
    if as_json:
        rows = {str(file): [asdict(one) for one in found[file]] for file in files}
        blanks = {str(file): [asdict(one) for one in left[file]] for file in files}
        print_json({"findings": rows, "fill_in": blanks})
    else:
        for file in files:
            _print(file, found[file])
        num_blanks = sum(map(len, left.values()))
        if num_blanks:
            typer.echo("to fill in before the cluster starts:")
            for file in files:
                _print(file, left[file], indent="  ")
        num_warnings = sum(map(len, found.values())) - num_errors
        typer.echo(
            f"{_counted(len(files), 'file')}: {_counted(num_errors, 'error')}, "
            f"{_counted(num_warnings, 'warning')}, {num_blanks} to fill in"
        )
    if num_errors or (strict and any(left.values())):
        raise typer.Exit(2)


@clusters.command()
def env() -> None:
    """Print what Serve needs in the environment that Ray starts in, as lines for a shell.

    eval "$(kovar cluster env)" before `ray start` or `serve run`; cluster.yaml has it already.
    """
    from shlex import quote

    from kovar.serving.environment import SERVE_ENVIRONMENT

    for name, value in SERVE_ENVIRONMENT.items():
        typer.echo(f"export {name}={quote(value)}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _print(file: Path, findings: Sequence[Finding], *, indent: str = "") -> None:
    for one in findings:
        label = "" if one.rule == "fill-in" else f"{one.severity}: "
        typer.echo(f"{indent}{file}:{one.line} {one.field}: {label}{one.message} → {one.fix}")
