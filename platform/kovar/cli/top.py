"""`kovar top`: what the endpoints of a cluster do, now."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from kovar.cli.options import JsonFlag

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from kovar.serving.observe.serve_status import ServeStatus
    from kovar.serving.observe.traffic import ApplicationTraffic, Reading, VersionTraffic

WINDOW_S: Final = 30.0
"""Rates are those of the last half minute: Ray's nodes report every ten seconds."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What the cluster says at one moment: metrics, pages that are silent, and Serve's status."""

    reading: Reading
    missing: list[str]
    statuses: Mapping[str, ServeStatus] | None

    def since(self, before: Reading | None) -> tuple[ApplicationTraffic, ...]:
        from kovar.serving.observe.traffic import traffic_between, with_status

        return with_status(traffic_between(before, self.reading), self.statuses or {})


def top(
    address: Annotated[
        str | None,
        typer.Option(help="host:port of the cluster's head; RAY_ADDRESS or this machine's."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics page to read instead of the nodes' own; repeat for several."),
    ] = None,
    dashboard: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_DASHBOARD_ADDRESS",
            help="URL of Ray's dashboard, for Serve's status; the cluster's own if absent.",
        ),
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between two readings.", min=0.2)] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one table, of the time since the start, and end.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show state, versions, traffic, latency, queues and replicas of the endpoints."""
    from kovar.serving.observe.scraping import metrics_urls, read_metrics
    from kovar.serving.observe.serve_status import dashboard_url, read_status

    def look() -> _Look:
        cluster = address if address or metrics else _cluster()
        reading, missing = read_metrics(metrics or (metrics_urls(cluster) if cluster else []))
        url = dashboard or (dashboard_url(cluster) if cluster else None)
        return _Look(reading, missing, read_status(url))

    if once or as_json:
        _print(look(), as_json=as_json)
        return
    _follow(look, every)


def _cluster() -> str:
    from kovar.resources.cluster_state import find_cluster

    return find_cluster()


def _follow(look: Callable[[], _Look], every: float) -> None:
    from rich.live import Live

    readings: deque[Reading] = deque()
    with suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        while True:
            now = look()
            readings.append(now.reading)
            while len(readings) > 2 and now.reading.at - readings[0].at > WINDOW_S:
                readings.popleft()
            seconds = now.reading.at - readings[0].at
            live.update(_table(now, readings[0], live.console.width, seconds), refresh=True)
            time.sleep(every)


def _print(now: _Look, *, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        facts = {
            "applications": [asdict(one) for one in now.since(None)],
            "silent": now.missing,
            "knows_status": now.statuses is not None,
        }
        typer.echo(json.dumps(facts))
        return
    console = Console()
    console.print(_table(now, None, console.width, None))


def _table(now: _Look, before: Reading | None, width: int, seconds: float | None) -> RenderableType:
    found, knows_status = now.since(before), now.statuses is not None
    return traffic_table(
        found, now.missing, width=width, seconds=seconds, knows_status=knows_status
    )


def traffic_table(
    found: Sequence[ApplicationTraffic],
    missing: Sequence[str],
    *,
    width: int,
    seconds: float | None = None,
    knows_status: bool = True,
) -> RenderableType:
    """Show applications and, a row each, the versions that they serve.

    Args:
        found: what they did.
        missing: metrics pages that did not answer.
        width: columns of the terminal; a narrow one shows what changes, and not what is served.
        seconds: time that the rates are of; None for totals since the replicas' start.
        knows_status: whether Serve was asked for the applications' status and answered.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = [column for column in _COLUMNS if width >= column.min_width]
    table = Table(box=None, padding=(0, 2 if width >= _WIDE else 1, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(column.name, justify=column.justify, no_wrap=True)
    for one in found:
        for index, version in enumerate(one.versions or (None,)):
            row = _Row(one, version, seconds, is_first=index == 0)
            table.add_row(*(Text(column.cell(row)) for column in shown))
    notes = [note for one in found if (note := _unwell(one)) is not None]
    if not found:
        notes.append(Text("no endpoint reports metrics; a new one does within ten seconds"))
    if not knows_status:
        notes.append(
            Text("no dashboard tells Serve's status: only replicas that run are shown", style="dim")
        )
    if missing:
        notes.append(Text(f"{len(missing)} of the nodes do not answer", style="yellow"))
    if seconds is None:
        notes.append(Text("totals since the start of the replicas", style="dim"))
    else:
        notes.append(Text(f"per second, over the last {seconds:.0f} s · Ctrl-C ends", style="dim"))
    return Group(table, *notes)


def _unwell(application: ApplicationTraffic) -> Text | None:
    """Say why Serve does not run an application, in the last line of what it says."""
    from rich.text import Text

    serve = application.serve
    if serve is None or serve.status == "RUNNING":
        return None
    why = serve.message.strip().rpartition("\n")[2].strip()
    text = f"{application.application}: {_words(serve)}"
    return Text(f"{text}: {why}" if why else text, style="yellow")


def _words(serve: ServeStatus) -> str:
    return "asleep" if serve.is_asleep else serve.status.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class _Row:
    application: ApplicationTraffic
    version: VersionTraffic | None
    seconds: float | None
    is_first: bool

    def once(self, text: str) -> str:
        """Show what belongs to the application in its first row alone."""
        return text if self.is_first else ""

    def of(self, show: Callable[[VersionTraffic], str]) -> str:
        """Show what belongs to a version; an application without replicas has none."""
        return "–" if self.version is None else show(self.version)

    def rate(self, count: Callable[[VersionTraffic], int]) -> str:
        return self.of(lambda version: _rate(count(version), self.seconds))

    def served(self) -> str:
        """Name the version, or why there is none."""
        if self.version is not None:
            return f"{self.version.model} {self.version.version}"
        serve = self.application.serve
        return _words(serve) if serve is not None else "–"

    def status(self) -> str:
        serve = self.application.serve
        return self.once(_words(serve) if serve is not None else "–")

    def replicas(self) -> str:
        """Show replicas of the version, or without one those that run, of those that are to be."""
        serve = self.application.serve
        if self.version is not None:
            up = str(self.version.num_replicas)
            return up if serve is None else f"{up}/{serve.num_target}"
        return "–" if serve is None else f"{serve.num_running}/{serve.num_target}"


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
    _Column("status", lambda row: row.status(), _WIDEST, "left"),
    _Column("version", lambda row: row.served(), justify="left"),
    _Column("digest", lambda row: row.of(lambda one: one.digest[:12]), _WIDE, "left"),
    _Column("runtime", lambda row: row.of(lambda one: one.runtime), _WIDEST, "left"),
    _Column("up", lambda row: row.replicas()),
    _Column("answered", lambda row: row.rate(lambda one: one.num_answered)),
    _Column("refused", lambda row: row.rate(lambda one: one.num_refused)),
    _Column("failed", lambda row: row.rate(lambda one: one.num_failed)),
    _Column("p50", lambda row: row.of(lambda one: _ms(one.p50_s))),
    _Column("p99", lambda row: row.of(lambda one: _ms(one.p99_s))),
    _Column("queue", lambda row: row.of(lambda one: str(one.queued_texts))),
    _Column("running", lambda row: row.once(str(row.application.running_requests)), _WIDE),
    _Column("texts", lambda row: row.rate(lambda one: one.num_texts), _WIDE),
    _Column("padding", lambda row: row.of(lambda one: _share(one.padding)), _WIDEST),
)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _rate(count: int, seconds: float | None) -> str:
    if seconds is None:
        return f"{count:,}"
    return f"{count / seconds:.1f}" if seconds > 0 else "–"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.0f} ms"
