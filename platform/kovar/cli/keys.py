"""`kovar keys`: the keys that sign versions, and the API keys of endpoints' callers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kovar.cli.options import JsonFlag
from kovar.errors import UserError
from kovar.settings import load_settings

if TYPE_CHECKING:
    from kovar.serving.access import ApiKey, Scope

keys = typer.Typer(
    help="The keys that sign versions, and the API keys of endpoints' callers.",
    no_args_is_help=True,
)

KeyFile = Annotated[
    Path | None, typer.Option("--file", help="File of API keys; KOVAR_API_KEYS if absent.")
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="Public id, as `kovar keys list` shows.")]


@keys.command()
def generate(
    path: Annotated[Path, typer.Argument(help="New file for the private key.")],
) -> None:
    """Write a key that signs versions (mode 0600) and beside it, ending in .pub, the public one."""
    from kovar.registry.signing_keys import Signer, generate_keys

    public = generate_keys(path.expanduser().absolute())
    typer.echo(f"key id   {Signer.read(path.expanduser().absolute()).key_id}")
    typer.echo(f"private  {path}   KOVAR_SIGNING_KEY on machines that register")
    typer.echo(f"public   {public}   KOVAR_TRUSTED_KEYS on machines that load")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for example billing-service.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="predict, metadata or admin; repeat for several. predict if absent."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Life of the key: 90d, 12h or 30min. No end if absent.")
    ] = None,
    requests_per_s: Annotated[
        float | None, typer.Option(help="Requests a second, at one replica.")
    ] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once after a pause.")] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Requests at one time, at one replica.")
    ] = None,
    file: KeyFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an API key and show it, this one time."""
    from kovar.serving.access.key import KeyLimits, issue
    from kovar.serving.access.key_file import add_key

    path, now = _path_of(file), datetime.now(UTC)
    limits = _checked(
        KeyLimits, requests_per_s=requests_per_s, burst=burst, max_concurrent=max_concurrent
    )
    if not 1 <= len(name) <= 100:
        raise UserError("the name must have 1 to 100 characters", field="NAME", got=name)
    key, token = issue(
        name,
        _scopes(scope or ["predict"]),
        expires_at=now + _duration(expires, field="--expires") if expires else None,
        limits=limits,
        now=now,
    )
    add_key(path, key)
    _show_new(key, token, as_json=as_json)


@keys.command("list")
def list_keys(file: KeyFile = None, as_json: JsonFlag = False) -> None:
    """List the API keys: whose they are, what they allow, whether they can be used."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kovar.serving.access.key_file import read_keys

    found, now = read_keys(_path_of(file)), datetime.now(UTC)
    if as_json:
        typer.echo(json.dumps([_facts(key, now) for key in found]))
        return
    table = Table("id", "name", "scopes", "created", "expires", "limits", "state")
    for key in found:
        expires = key.expires_at.strftime("%Y-%m-%d %H:%M") if key.expires_at else "never"
        limits = key.limits.model_dump(exclude_none=True)
        table.add_row(
            key.id,
            Text(key.name),
            ", ".join(key.scopes),
            key.created_at.strftime("%Y-%m-%d %H:%M"),
            expires,
            ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none",
            key.state(now),
        )
    Console().print(table)


@keys.command()
def revoke(key_id: KeyId, file: KeyFile = None) -> None:
    """Take an API key back; running replicas refuse it within a second."""
    from kovar.serving.access.key_file import replace_key

    now = datetime.now(UTC)
    key = replace_key(
        _path_of(file),
        key_id,
        lambda key: key.model_copy(update={"revoked_at": key.revoked_at or now}),
    )
    typer.echo(f"revoked  {key.id}  {key.name}")


@keys.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[
        str, typer.Option(help="How long the old key still holds: 24h, 7d; 0s ends it now.")
    ] = "24h",
    expires: Annotated[
        str | None, typer.Option(help="Life of the new key: 90d, 12h. No end if absent.")
    ] = None,
    file: KeyFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the successor of an API key, with its name, scopes and limits."""
    from kovar.serving.access.key import issue
    from kovar.serving.access.key_file import find_key, read_keys, replace_by

    path, now = _path_of(file), datetime.now(UTC)
    old = find_key(read_keys(path), key_id)
    if old.revoked_at is not None:
        raise UserError(
            "this key was revoked", field="ID", got=key_id, hint="make one: kovar keys create"
        )
    end = now + _duration(expires, field="--expires") if expires else None
    key, token = issue(old.name, old.scopes, expires_at=end, limits=old.limits, now=now)
    until = now + _duration(grace, field="--grace")
    ending = replace_by(path, key_id, key, until=until)
    if not as_json:
        typer.echo(f"old key  {ending.id}  ends {ending.expires_at:%Y-%m-%d %H:%M} UTC")
    _show_new(key, token, as_json=as_json)


def _path_of(file: Path | None) -> Path:
    path = file or load_settings().api_keys
    if path is None:
        raise UserError(
            "no file of API keys is named",
            hint="give --file FILE, or set KOVAR_API_KEYS (api_keys in the settings file)",
        )
    return path.expanduser().absolute()


def _scopes(names: list[str]) -> tuple[Scope, ...]:
    from kovar.errors import did_you_mean
    from kovar.serving.access.key import SCOPES

    for name in names:
        if name not in SCOPES:
            raise UserError(
                "unknown scope",
                field="--scope",
                got=name,
                allowed=", ".join(SCOPES),
                hint=did_you_mean(name, list(SCOPES)),
            )
    return tuple(scope for scope in SCOPES if scope in names)


def _duration(text: str, *, field: str) -> timedelta:
    from kovar.serving.access.key import parse_duration

    try:
        return parse_duration(text)
    except ValueError as problem:
        raise UserError(str(problem), field=field, got=text) from None


def _checked(kind: Any, **values: Any) -> Any:
    """Validate options as the fields of a settings class."""
    from kovar.config import Document

    return Document.of(values, error=UserError).parse(kind)


def _facts(key: ApiKey, now: datetime) -> dict[str, Any]:
    """Return what may be shown of a key; its digest stays in the file."""
    return key.model_dump(mode="json", exclude={"sha256"}) | {"state": key.state(now)}


def _show_new(key: ApiKey, token: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_facts(key, key.created_at) | {"key": token}))
        return
    expires = f"{key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "never"
    typer.echo(f"id       {key.id}")
    typer.echo(f"name     {key.name}")
    typer.echo(f"scopes   {', '.join(key.scopes)}")
    typer.echo(f"expires  {expires}")
    typer.echo(f"key      {token}")
    typer.echo("The key is shown this one time: Authorization: Bearer KEY")
