"""`kovar top`: what the endpoints of a cluster do, now."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

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
            table = traffic_table(found, missing, width=live.console.width, seconds=seconds)
            live.update(table, refresh=True)
            time.sleep(every)


def _print(found: Sequence[ApplicationTraffic], missing: list[str], *, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps({"applications": [asdict(one) for one in found], "silent": missing}))
        return
    console = Console()
    console.print(traffic_table(found, missing, width=console.width))


def traffic_table(
    found: Sequence[ApplicationTraffic],
    missing: Sequence[str],
    *,
    width: int,
    seconds: float | None = None,
) -> RenderableType:
    """Show applications and, a row each, the versions that they serve.

    Args:
        found: what they did.
        missing: metrics pages that did not answer.
        width: columns of the terminal; a narrow one shows what changes, and not what is served.
        seconds: time that the rates are of; None for totals since the replicas' start.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = [column for column in _COLUMNS if width >= column.min_width]
    table = Table(box=None, padding=(0, 2 if width >= _WIDE else 1, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(column.name, justify=column.justify, no_wrap=True)
    for one in found:
        for index, version in enumerate(one.versions):
            row = _Row(one, version, seconds, is_first=index == 0)
            table.add_row(*(Text(column.cell(row)) for column in shown))
    notes = []
    if not found:
        notes.append(Text("no endpoint reports metrics; a new one does within ten seconds"))
    if missing:
        notes.append(Text(f"{len(missing)} of the nodes do not answer", style="yellow"))
    if seconds is None:
        notes.append(Text("totals since the start of the replicas", style="dim"))
    else:
        notes.append(Text(f"per second, over the last {seconds:.0f} s · Ctrl-C ends", style="dim"))
    return Group(table, *notes)


@dataclass(frozen=True, slots=True)
class _Row:
    application: ApplicationTraffic
    version: VersionTraffic
    seconds: float | None
    is_first: bool

    def once(self, text: str) -> str:
        """Show what belongs to the application in its first row alone."""
        return text if self.is_first else ""

    def rate(self, count: int) -> str:
        return _rate(count, self.seconds)


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cell: Callable[[_Row], str]
    min_width: int = 0
    justify: Literal["left", "right"] = "right"


_WIDE: Final = 120
_WIDEST: Final = 150
_COLUMNS: Final = (
    _Column("application", lambda row: row.once(row.application.application), justify="left"),
    _Column("version", lambda row: f"{row.version.model} {row.version.version}", justify="left"),
    _Column("digest", lambda row: row.version.digest[:12], _WIDE, "left"),
    _Column("runtime", lambda row: row.version.runtime, _WIDEST, "left"),
    _Column("up", lambda row: str(row.version.num_replicas)),
    _Column("answered", lambda row: row.rate(row.version.num_answered)),
    _Column("refused", lambda row: row.rate(row.version.num_refused)),
    _Column("failed", lambda row: row.rate(row.version.num_failed)),
    _Column("p50", lambda row: _ms(row.version.p50_s)),
    _Column("p99", lambda row: _ms(row.version.p99_s)),
    _Column("queue", lambda row: row.once(str(row.application.queued_texts))),
    _Column("running", lambda row: row.once(str(row.application.running_requests)), _WIDE),
    _Column("texts", lambda row: row.rate(row.version.num_texts), _WIDE),
    _Column("padding", lambda row: row.once(_share(row.application.padding)), _WIDEST),
)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _rate(count: int, seconds: float | None) -> str:
    if seconds is None:
        return f"{count:,}"
    return f"{count / seconds:.1f}" if seconds > 0 else "–"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.0f} ms"
