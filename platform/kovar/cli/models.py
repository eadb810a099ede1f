"""`kovar models`: look at versions, move aliases, verify files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from kovar.cli.aliases import aliases
from kovar.cli.display import print_json, version_facts, when
from kovar.cli.options import JsonFlag
from kovar.cli.relations import relations
from kovar.config import format_size
from kovar.errors import UserError
from kovar.settings import load_settings

if TYPE_CHECKING:
    from kovar.registry import MetricBound, Model, Version, VersionSummary

Limit = Annotated[int, typer.Option(help="Rows of a page, at most.", min=1)]

models = typer.Typer(help="The registry: versions, aliases, verification.", no_args_is_help=True)
models.add_typer(aliases)
models.add_typer(relations)


@models.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(help="Show the versions of this one.")] = None,
    limit: Limit = 50,
    after: Annotated[
        str | None, typer.Option(help="Last model, or number, of the page before.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List models, or the versions of one, a page at a time."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        if model is None:
            _list_models(registry.models(limit=limit, after=after), as_json=as_json)
            return
        before = None if after is None else int(after) if after.isdecimal() else -1
        if before == -1:
            raise UserError("not a version's number", field="--after", got=after)
        aliases = registry.aliases(model)
        if as_json:
            _print_versions(registry.versions(model, limit=limit, before=before), aliases)
        else:
            found = registry.version_summaries(model, limit=limit, before=before)
            _list_versions(found, aliases)


@models.command()
def search(
    text: Annotated[str, typer.Argument(help="Words that a version must have.")] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Bound, best first: 'accuracy>=0.8' or 'test.loss<=0.3'."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Label: key=value.")] = None,
    limit: Limit = 50,
    after: Annotated[str | None, typer.Option(help="Last version of the page before.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find versions of all models by words, metrics and tags."""
    from kovar.registry import Registry

    bounds = [_bound(each) for each in metric or []]
    pairs = [each.partition("=") for each in tag or []]
    tags = {key: value for key, _, value in pairs}
    with Registry.open(load_settings()) as registry:
        if as_json:
            whole = registry.search(text, metrics=bounds, tags=tags, limit=limit, before=after)
            print_json([version_facts(each, []) for each in whole])
            return
        found = registry.search_summaries(
            text, metrics=bounds, tags=tags, limit=limit, before=after
        )
    table = Table("version", "digest", "accuracy", "run", "tags", "created")
    for each in found:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(each.tags.items()))
        row = (str(each), each.digest[:12], _accuracy(each), each.run or "–", labels)
        table.add_row(*row, when(each.created_at))
    Console().print(table if found else "no version matches")


def _bound(text: str) -> MetricBound:
    from kovar.registry import MetricBound

    match = re.fullmatch(r"(?:([^.<>=]+)\.)?([^<>=]+)(>=|<=)([-+.0-9eE]+)", text)
    try:
        if match is None:
            raise ValueError
        dataset, name, sign, value = match.groups()
        limit = {"minimum" if sign == ">=" else "maximum": float(value)}
        return MetricBound(dataset=dataset or "evaluation", metric=name, **limit)
    except ValueError:
        raise UserError(
            "not a bound of a metric",
            field="--metric",
            got=text,
            allowed="accuracy>=0.8, or with a data set: test.loss<=0.3",
        ) from None


def _accuracy(found: VersionSummary) -> str:
    accuracy = found.metrics.get("evaluation", {}).get("accuracy")
    return f"{accuracy:.4f}" if isinstance(accuracy, float) else "–"


def _list_models(found: Sequence[Model], *, as_json: bool) -> None:
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
        table.add_row(m.name, str(m.num_versions), str(m.latest), aliases, when(m.created_at))
    Console().print(table if found else "no models yet: kovar quickstart makes one")


def _print_versions(found: Sequence[Version], aliases: Mapping[str, int]) -> None:
    names = _names(aliases)
    typer.echo(json.dumps([version_facts(v, names.get(v.number, [])) for v in found]))


def _names(aliases: Mapping[str, int]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for alias, number in aliases.items():
        names.setdefault(number, []).append(alias)
    return names


def _list_versions(found: Sequence[VersionSummary], aliases: Mapping[str, int]) -> None:
    names = _names(aliases)
    table = Table("version", "digest", "accuracy", "precision", "aliases", "run", "created")
    for v in found:
        table.add_row(
            str(v.number),
            v.digest[:12],
            _accuracy(v),
            v.precision,
            ", ".join(sorted(names.get(v.number, []))),
            v.run or "–",
            when(v.created_at),
        )
    Console().print(table)


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
        typer.echo(json.dumps(version_facts(found, aliases)))
        return
    if html is not None:
        typer.echo(f"{found}: {html}")
        return
    Console().print(Markdown(card(found, aliases=aliases)))


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


@models.command()
def delete(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Number or digest.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    as_json: JsonFlag = False,
) -> None:
    """Delete a version that no alias and no child points at; gc removes its files later."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        found = registry.delete(model, version, reason=reason)
    if as_json:
        print_json({"deleted": str(found), "digest": found.digest})
    else:
        typer.echo(f"{found} is deleted; register the same content to have it back")


@models.command()
def gc(
    grace_hours: Annotated[
        float, typer.Option(help="Age from which unneeded files go, in hours.", min=0)
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove the stored files that no version needs."""
    from kovar.registry import Registry

    with Registry.open(load_settings()) as registry:
        found = registry.collect_garbage(grace=timedelta(hours=grace_hours), dry_run=dry_run)
    if as_json:
        print_json(
            {
                "num_blobs": found.num_blobs,
                "num_young": found.num_young,
                "num_swept": len(found.swept),
                "swept_bytes": found.swept_bytes,
                "dry_run": dry_run,
            }
        )
        return
    verb = "would be removed" if dry_run else "removed"
    typer.echo(
        f"{found.num_blobs} blobs: {len(found.swept)} files ({format_size(found.swept_bytes)}) "
        f"{verb}, {found.num_young} unneeded ones are too young"
    )
