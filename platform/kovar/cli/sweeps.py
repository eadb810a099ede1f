"""`kovar sweeps`: what sweeps found, and what they recommend."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kovar.cli.display import print_json, when
from kovar.cli.options import JsonFlag
from kovar.errors import UserError
from kovar.settings import load_settings

if TYPE_CHECKING:
    from kovar.tuning.shelf import ShelvedSweep

_COLORS: Final = {
    "running": "blue", "finished": "green", "unfinished": "yellow", "interrupted": "yellow",
}  # fmt: skip

Reference = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="A sweep's id or its beginning, its name (the newest), or a folder."
    ),
]

sweeps = typer.Typer(help="Sweeps: ranked trials, recommendation, report.", no_args_is_help=True)


@sweeps.command("list")
def list_command(
    limit: Annotated[int, typer.Option(help="Rows, at most.", min=1)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List sweeps, the newest first."""
    from kovar.tuning.shelf import list_sweeps

    found = list_sweeps(load_settings().runs_dir)
    if as_json:
        print_json([one.to_json() for one in found[:limit]])
        return
    if not found:
        Console().print("no sweeps yet")
        return
    Console().print(_table(found[:limit]))
    if found[limit:]:
        typer.echo(f"{len(found) - limit} older: --limit {len(found)}")


@sweeps.command()
def show(
    reference: Reference,
    html: Annotated[
        Path | None, typer.Option(help="Write the page to this file; it needs no network.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a sweep's ranked trials and its recommendation; one that runs as far as it is."""
    from kovar.tuning.shelf import find_sweep

    found = find_sweep(load_settings().runs_dir, reference)
    if html is not None:
        _write_page(found, html)
    if as_json:
        print_json(dict(found.results) if found.results else found.report.to_json())
    elif html is not None:
        typer.echo(f"{found.sweep}: {html}")
    else:
        Console().print(found.report.table())
        _say_more(found)


def _table(found: list[ShelvedSweep]) -> Table:
    from rich.box import SIMPLE_HEAD

    heads = ("sweep", "status", "started", "trials", "best", "recommended", "cost")
    table = Table(*heads, box=SIMPLE_HEAD)
    for one in found:
        facts, best = one.report.facts, one.report.best_configuration
        score = best.metric(facts.metric) if best else None
        chosen = one.to_json()["recommended"]
        finished, cost = one.report.counts.get("finished", 0), one.report.cost
        table.add_row(
            Text(one.sweep),
            Text(one.status, style=_COLORS[one.status]),
            when(datetime.fromtimestamp(one.started_at, UTC)) if one.started_at else "–",
            f"{finished} of {len(one.report.trials)}",
            f"{facts.metric} {score.shown()}" if score else "–",
            f"configuration {chosen}" if chosen else "–",
            "–" if cost is None else f"{facts.currency}{cost:,.2f}",
        )
    return table


def _say_more(found: ShelvedSweep) -> None:
    from kovar.tuning.report.snippet import snippet

    console = Console(highlight=False)
    chosen = found.results.get("recommendation") if found.results else None
    if chosen:
        configurations = {one.number: one for one in found.report.configurations}
        console.print(Text(f"recommended: configuration {chosen['configuration']}", "bold"))
        console.print(Text(f"  {chosen['reason']}"))
        console.print(Text(f"  rule: {chosen['rule']}", "dim"))
        lines = snippet(configurations[chosen["configuration"]].point)
        console.print(Text("\n".join(f"    {line}" for line in lines.splitlines())))
    if found.status in ("running", "interrupted"):
        console.print(Text(f"{found.status}: this is how far it came", _COLORS[found.status]))
        return
    typer.echo(f"page         {found.folder / 'report.html'}")
    typer.echo(f"TensorBoard  tensorboard --logdir {found.folder / 'tensorboard'}")


def _write_page(found: ShelvedSweep, path: Path) -> None:
    from kovar.tuning.report import analyze
    from kovar.tuning.report.page import sweep_page

    page = sweep_page(found.report, analyze(found.report, found.folder))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as problem:
        raise UserError(f"cannot write the page: {problem.strerror}", file=path) from None
