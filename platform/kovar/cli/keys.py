"""`kovar keys`: the keys that sign versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(help="The keys that sign versions.", no_args_is_help=True)


@keys.callback()
def _group() -> None:
    """Make `generate` a command of its own: Typer would run a lone command without its name."""


@keys.command()
def generate(
    path: Annotated[Path, typer.Argument(help="New file for the private key.")],
) -> None:
    """Write a private key (mode 0600) and beside it, ending in .pub, the public one."""
    from kovar.registry.signing import Signer, generate_keys

    public = generate_keys(path.expanduser().absolute())
    typer.echo(f"key id   {Signer.read(path.expanduser().absolute()).key_id}")
    typer.echo(f"private  {path}   KOVAR_SIGNING_KEY on machines that register")
    typer.echo(f"public   {public}   KOVAR_TRUSTED_KEYS on machines that load")
