"""`kovar runs`: what ran, how far it is, where its time went and why it failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from kovar.cli.display import print_json
from kovar.cli.options import JsonFlag
from kovar.cli.run_display import (
    explanation,
    log_line,
    run_facts,
    runs_table,
    trials_table,
)
from kovar.errors import UserError, did_you_mean
from kovar.settings import load_settings

if TYPE_CHECKING:
    from kovar.training.folder import RunFolder
    from kovar.training.history import Status

POLL_S: Final = 0.5

Run = Annotated[
    str,
    typer.Argument(help="A run's id or its beginning, a model's name (its newest), or a folder."),
]

runs = typer.Typer(
    help="Training runs: status, metrics, where the time went.", no_args_is_help=True
)


@runs.command("list")
def list_command(
    status: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    limit: Annotated[int, typer.Option(help="Rows, at most.", min=1)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List runs and sweeps, the newest first."""
    from kovar.training.history import list_runs

    runs_dir = load_settings().runs_dir
    found = list_runs(runs_dir, status=_status(status), model=model)
    if as_json:
        print_json([one.to_json() for one in found[:limit]])
        return
    if not found:
        Console().print(f"no such runs in {runs_dir}" if status or model else "no runs yet")
        return
    console = Console()
    console.print(runs_table(found[:limit], width=console.width))
    if found[limit:]:
        console.print(f"{len(found) - limit:,} older ones are left out: --limit {len(found)}")


@runs.command()
def show(
    run: Run,
    html: Annotated[
        Path | None, typer.Option(help="Write the run as an HTML page into this file.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one run: facts, metrics, attempts, files."""
    from kovar.training.history import read_history, trials_of

    folder = _found(run)
    trials = trials_of(folder)
    if trials:
        if html is not None:
            raise UserError("a sweep has no page", field="--html", hint="name one of its trials")
        if as_json:
            print_json([trial.to_json() for trial in trials])
        else:
            Console().print(trials_table(folder, trials))
        return
    history = read_history(folder)
    if html is not None:
        from kovar.training.history.page import run_page

        try:
            html.write_text(run_page(history), encoding="utf-8")
        except OSError as problem:
            raise UserError(f"cannot write the page: {problem.strerror}", file=html) from None
    if as_json:
        print_json(history.to_json())
    elif html is not None:
        typer.echo(f"{history.run}: {html}")
    else:
        Console().print(run_facts(history))


@runs.command()
def tail(
    run: Run,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines to begin with.", min=0)] = 20,
) -> None:
    """Print the last lines of a run's event log; with -f as they are written."""
    from kovar.events import EventTail
    from kovar.training.history import LIVE, read_history

    folder = _single(run)
    log = EventTail(folder.events)
    for event in log.read()[-lines:] if lines else ():
        typer.echo(log_line(event))
    while follow:
        # Asked before reading: what is written up to the end is then still printed.
        lives = read_history(folder).status in LIVE
        for event in log.read():
            typer.echo(log_line(event))
        if not lives:
            return
        time.sleep(POLL_S)


@runs.command()
def explain(run: Run, as_json: JsonFlag = False) -> None:
    """Say where the time of a run went and why it failed, from its event log alone."""
    from kovar.training.history import findings, read_history, why_ended

    history = read_history(_single(run))
    if as_json:
        why = why_ended(history)
        stands_out = [vars(one) for one in findings(history)]
        print_json(history.to_json() | {"why": vars(why) if why else None, "findings": stands_out})
        return
    Console().print(explanation(history))


def _found(run: str) -> RunFolder:
    from kovar.training.history import find_run

    return find_run(load_settings().runs_dir, run)


def _single(run: str) -> RunFolder:
    """Find a run that has a log of its own, which a sweep does not.

    Raises:
        UserError: it is a sweep; names its trials.
    """
    from kovar.training.history import trials_of

    folder = _found(run)
    trials = trials_of(folder)
    if trials:
        names = [f"{folder.run}/{trial.run}" for trial in trials]
        raise UserError(
            "a sweep has one log per trial",
            field="RUN",
            got=run,
            allowed=", ".join(names[:4]) + (", …" if names[4:] else ""),
        )
    return folder


def _status(text: str | None) -> Status | None:
    from kovar.training.history import STATUSES

    for status in STATUSES:
        if text == status:
            return status
    if text is not None:
        raise UserError(
            "no such state",
            field="--status",
            got=text,
            allowed=", ".join(STATUSES),
            hint=did_you_mean(text, list(STATUSES)),
        )
    return None
