"""`kovar top`: what the endpoints of a cluster do, now."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kovar.cli.options import JsonFlag

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kovar.serving.observe.traffic import ApplicationTraffic, Reading, VersionTraffic

    Look = Callable[[], tuple[Reading, list[str]]]

WINDOW_S: Final = 30.0
"""Rates are those of the last half minute: Ray's nodes report every ten seconds."""


def top(
    address: Annotated[
        str | None,
        typer.Option(help="host:port of the cluster's head; RAY_ADDRESS or this machine's."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics page to read instead of the nodes' own; repeat for several."),
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between two readings.", min=0.2)] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one table, of the time since the start, and end.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show versions, traffic, latency, queues and replicas of the running endpoints."""
    from kovar.serving.observe.scraping import metrics_urls, read_metrics
    from kovar.serving.observe.traffic import traffic_between

    def look() -> tuple[Reading, list[str]]:
        return read_metrics(metrics or metrics_urls(address or _cluster()))

    if once or as_json:
        reading, missing = look()
        found = traffic_between(None, reading)
        _print(found, missing, as_json=as_json)
        return
    _follow(look, every)


def _cluster() -> str:
    from kovar.resources.cluster_state import find_cluster

    return find_cluster()


def _follow(look: Look, every: float) -> None:
    from rich.live import Live

    from kovar.serving.observe.traffic import traffic_between

    readings: deque[Reading] = deque()
    with suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        while True:
            reading, missing = look()
            readings.append(reading)
            while len(readings) > 2 and reading.at - readings[0].at > WINDOW_S:
                readings.popleft()
            seconds = reading.at - readings[0].at
            found = traffic_between(readings[0], reading)
            live.update(traffic_table(found, missing, seconds=seconds), refresh=True)
            time.sleep(every)


def _print(found: Sequence[ApplicationTraffic], missing: list[str], *, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps({"applications": [asdict(one) for one in found], "silent": missing}))
        return
    Console().print(traffic_table(found, missing))


def traffic_table(
    found: Sequence[ApplicationTraffic], missing: Sequence[str], *, seconds: float | None = None
) -> RenderableType:
    """Show applications and, a row each, the versions that they serve.

    Args:
        found: what they did.
        missing: metrics pages that did not answer.
        seconds: time that the rates are of; None for totals since the replicas' start.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    totals = seconds is None
    rate = "" if totals else "/s"
    table = Table(box=SIMPLE_HEAD)
    for name in ("application", "version", "digest", "runtime"):
        table.add_column(name, no_wrap=True)
    for name in ("replicas", f"answered{rate}", f"refused{rate}", f"failed{rate}", "p50", "p99",
                 "waiting", "running", f"texts{rate}", "padding"):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        for index, version in enumerate(one.versions):
            table.add_row(*_cells(one, version, seconds, is_first=index == 0))
    notes = []
    if not found:
        notes.append(Text("no endpoint reports metrics; a new one does within ten seconds"))
    if missing:
        notes.append(Text(f"{len(missing)} of the nodes do not answer", style="yellow"))
    if not totals:
        notes.append(Text(f"rates of the last {seconds:.0f} s · Ctrl-C ends", style="dim"))
    return Group(table, *notes)


def _cells(
    one: ApplicationTraffic, version: VersionTraffic, seconds: float | None, *, is_first: bool
) -> list[str]:
    shared = (str(one.queued_texts), str(one.running_requests)) if is_first else ("", "")
    padding = f"{one.padding:.0%}" if one.padding is not None and is_first else ""
    return [
        one.application if is_first else "",
        f"{version.model} {version.version}",
        version.digest[:12],
        version.runtime,
        str(version.num_replicas),
        _rate(version.num_answered, seconds),
        _rate(version.num_refused, seconds),
        _rate(version.num_failed, seconds),
        _ms(version.p50_s),
        _ms(version.p99_s),
        *shared,
        _rate(version.num_texts, seconds),
        padding,
    ]


def _rate(count: int, seconds: float | None) -> str:
    if seconds is None:
        return f"{count:,}"
    return f"{count / seconds:.1f}" if seconds > 0 else "–"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.0f} ms"
