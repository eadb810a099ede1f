"""`kovar autoscale`: rehearse how an application follows its traffic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kovar.cli.display import print_json
from kovar.cli.options import JsonFlag
from kovar.errors import UserError

if TYPE_CHECKING:
    from kovar.serving.autoscaling.replay import Replay
    from kovar.serving.spec import ServingSpec

autoscale = typer.Typer(help="Rehearse autoscaling before traffic does.", no_args_is_help=True)


@autoscale.callback()
def commands() -> None:
    """Rehearse autoscaling before traffic does."""


@autoscale.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="CSV with time and, optionally, requests, tokens.")],
    spec: Annotated[Path, typer.Option(help="Ray Serve file whose application is rehearsed.")],
    tokens_per_s: Annotated[
        float, typer.Option(min=1, help="Tokens that one replica answers in a second, measured.")
    ],
    batch_ms: Annotated[
        float, typer.Option(min=0, help="Milliseconds of a batch of one text, measured.")
    ] = 10.0,
    start_s: Annotated[
        float, typer.Option(min=0, help="Seconds from a decision to the new replica's answer.")
    ] = 10.0,
    app: Annotated[str | None, typer.Option(help="Name of the application in the file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the rehearsal into this file.")] = None,
    assert_flaps: Annotated[
        int | None, typer.Option(min=0, help="Fail when more changes are taken back than this.")
    ] = None,
    assert_p99_ms: Annotated[
        float | None, typer.Option(min=0, help="Fail when the predicted p99 is higher.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the very autoscaling policy over a trace of traffic, in virtual time."""
    from kovar.serving.autoscaling.binding import rules_of
    from kovar.serving.autoscaling.replay import ReplicaSpeed
    from kovar.serving.autoscaling.replay import replay as run_replay
    from kovar.serving.autoscaling.trace import read_trace

    if png is not None and not png.absolute().parent.is_dir():
        raise UserError("there is no such folder", field="--png", got=str(png.parent))
    served, traffic = _application(spec, app), read_trace(trace)
    rules = rules_of(served.num_replicas, served.autoscaling)
    limits = served.limits
    queue = min(limits.max_queued * traffic.tokens_per_request, limits.max_wait_s * tokens_per_s)
    speed = ReplicaSpeed(tokens_per_s, batch_ms / 1000, start_s, max_queued_tokens=queue)
    result = run_replay(traffic, rules, speed)
    if png is not None:
        from kovar.serving.autoscaling.picture import draw_replay

        draw_replay(
            result,
            png,
            title=f"{trace.name}: {served.model}, {rules.min_replicas} to "
            f"{rules.max_replicas} replicas",
        )
    facts = _facts(result)
    if as_json:
        print_json(facts)
    else:
        _show(facts)
    broken = [
        f"{name} {got:g}, at most {allowed:g} allowed"
        for name, got, allowed in (
            ("flaps", result.num_flaps, assert_flaps),
            ("p99_ms", facts["p99_ms"], assert_p99_ms),
        )
        if allowed is not None and (got is None or got > allowed)
    ]
    for line in broken:
        typer.echo(line, err=True)
    if broken:
        raise typer.Exit(1)


@autoscale.command()
def record(
    logs: Annotated[list[Path], typer.Argument(help="access-*.jsonl of the replicas.")],
    csv: Annotated[Path, typer.Option(help="Write the trace into this file.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a trace for `replay` of the access logs of an endpoint."""
    from kovar.serving.autoscaling.recorded import read_recording

    if not csv.absolute().parent.is_dir():
        raise UserError("there is no such folder", field="--csv", got=str(csv.parent))
    found = read_recording(logs)
    found.write(csv)
    facts = {"seconds": found.end - found.begin + 1, "requests": found.num_requests}
    if as_json:
        print_json(facts)
    else:
        _show(facts)


def _application(path: Path, name: str | None) -> ServingSpec:
    """Return the application to rehearse; a file may have several.

    Raises:
        UserError: there is none of that name, or several and none is named.
    """
    from kovar.planning.entry import read_entries
    from kovar.serving.spec import ServingSpec

    found = {
        entry.demand.name: entry.work
        for entry in read_entries([path])
        if isinstance(entry.work, ServingSpec)
    }
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name in found:
        return found[name]
    raise UserError(
        "which application?",
        file=path,
        field="--app",
        got=name or "none",
        allowed=", ".join(found) or "a Ray Serve file with applications of Kovar",
    )


def _facts(result: Replay) -> dict[str, Any]:
    asked = sum(result.requests)
    return {
        "seconds": len(result.running),
        "requests": round(asked),
        "refused": round(sum(result.refused)),
        "min_running": min(result.running),
        "max_running": max(result.running),
        "changes": result.num_changes,
        "flaps": result.num_flaps,
        "replica_hours": round(result.replica_hours, 3),
        "p50_ms": _milliseconds(result.latency(0.5)),
        "p99_ms": _milliseconds(result.latency(0.99)),
    }


def _milliseconds(seconds: float) -> float | None:
    """Return None for what never comes: requests that no replica was there to answer."""
    return round(seconds * 1000, 1) if math.isfinite(seconds) else None


def _show(facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<14} {'never' if value is None else f'{value:,}'}")
