"""How the `kovar runs` commands show runs: tables, bars, and a line per event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kovar.config import format_duration, format_size

if TYPE_CHECKING:
    from kovar.training.folder import RunFolder
    from kovar.training.history import Finding, RunHistory, RunSummary, Timeline

_COLORS: Final = {
    "queued": "cyan",
    "waiting": "yellow",
    "running": "blue",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
}
_BAR: Final = 20
_WIDE: Final = 116
"""Columns that the table of runs needs for everything; a run's id begins with its model's name."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def runs_table(found: Sequence[RunSummary], *, width: int) -> Table:
    """Show runs, a row each; kind and model only where the terminal is wide enough."""
    wide = width >= _WIDE
    table = _table(
        "run", *(("kind", "model") if wide else ()), "status", "started", "duration", "score"
    )
    for one in found:
        table.add_row(
            Text(one.run),
            *((one.kind, Text(one.model)) if wide else ()),
            Text(one.status, style=_COLORS[one.status]),
            _moment(one.started_at),
            format_duration(one.seconds),
            "–" if one.score is None else f"{one.metric} {one.score:.4f}",
        )
    return table


def trials_table(folder: RunFolder, trials: Sequence[RunSummary]) -> Table:
    """Show the trials of a sweep."""
    table = _table("trial", "status", "started", "duration", "accuracy", title=folder.run)
    for one in trials:
        table.add_row(
            one.run,
            Text(one.status, style=_COLORS[one.status]),
            _moment(one.started_at),
            format_duration(one.seconds),
            "–" if one.score is None else f"{one.metric} {one.score:.4f}",
        )
    table.caption = f"kovar runs explain {folder.run}/{trials[0].run}"
    return table


def run_facts(history: RunHistory) -> Group:
    """Show one run: facts, metrics, attempts, files."""
    parts: list[RenderableType] = [_facts(history)]
    if history.metrics:
        parts.append(_metrics(history))
    if history.attempts:
        parts.append(_attempts(history))
    files = _table("file", "size", title="files")
    for path in sorted(history.folder.root.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            files.add_row(path.name, format_size(path.stat().st_size))
        elif path.is_dir():
            files.add_row(f"{path.name}/", "")
    return Group(*parts, files)


def explanation(history: RunHistory) -> Group:
    """Show where the time of a run went, what stands out, and why it failed."""
    from kovar.training.history import findings, why_ended

    attempts = len(history.attempts)
    head = Text.assemble(
        (history.run, "bold"),
        " · ",
        (history.status, _COLORS[history.status]),
        f" · {format_duration(history.timeline.total_s)}",
        f" · {attempts} attempt{'' if attempts == 1 else 's'}",
    )
    why = why_ended(history)
    notes = [*([why] if why else []), *findings(history)]
    shown = (_note(one, urgent=one is why) for one in notes)
    return Group(head, *shown, Text(), times(history.timeline))


def times(timeline: Timeline) -> Table:
    """Show the phases as bars, the longest first."""
    from kovar.training.history import MEANING

    table = _table("phase", "time", "share", "", "what it is", title="where the time went")
    total = timeline.total_s
    for phase, seconds in sorted(timeline.seconds.items(), key=lambda one: -one[1]):
        share = seconds / total
        row = (phase, format_duration(seconds), f"{share:.1%}", bar(share), MEANING[phase])
        table.add_row(*row)
    table.add_row("total", format_duration(total), "100.0%" if total else "", "", "")
    return table


def bar(share: float) -> str:
    """Draw a share of a full bar, to an eighth of a character."""
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def log_line(event: Mapping[str, Any]) -> str:
    """Write an event as one readable line."""
    moment = datetime.fromisoformat(event["time"]).astimezone()
    rank = event.get("rank", -1)
    who = "driver" if rank == -1 else f"rank {rank}"
    kind = str(event["event"])
    try:
        text = _TEXTS.get(kind, _fields)(event)
    except (KeyError, TypeError, ValueError, AttributeError):
        # A line of another Kovar is shown as it is.
        text = _fields(event)
    return f"{moment:%H:%M:%S} {who:<7} {kind:<10} {text}".rstrip()


def _step(e: Mapping[str, Any]) -> str:
    speed = e["tokens"] / max(e["seconds"], 1e-9)
    return (
        f"{e['step']}: loss {e['loss']:.4f}  lr {e['learning_rate']:.1e}  {speed:,.0f} tokens/s  "
        f"padding {e['padding']:.0%}  gradient norm {e['gradient_norm']:.2f}"
    )


def _evaluated(e: Mapping[str, Any]) -> str:
    scores = (f"{k} {v:.4f}" for k, v in e["metrics"].items() if isinstance(v, float))
    return f"step {e['step']}: {'  '.join(scores)}{'  (final)' if e.get('final') else ''}"


def _resumed(e: Mapping[str, Any]) -> str:
    ignored = "".join(f"; ignored {reason}" for reason in e["ignored"])
    return f"from step {e['step']}{ignored}"


def _fields(e: Mapping[str, Any]) -> str:
    known = ("v", "time", "run", "attempt", "rank", "event")
    return "  ".join(f"{k} {v}" for k, v in e.items() if k not in known)


_TEXTS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "queued": lambda e: f"{e['kind']} {e['spec']}",
    "prepared": lambda e: f"in {format_duration(e['seconds'])}",
    "planned": lambda e: f"{e['num_workers']} workers, {e['reason']}",
    "placing": lambda e: f"{e['num_workers']} workers wait for hardware",
    "placed": lambda e: f"{e['num_workers']} workers on {', '.join(e['nodes'])}",
    "preparing": lambda e: f"{e['what']} {e['done']:,}/{e['total']:,}",
    "started": lambda e: (
        f"attempt {e['attempt']}: {e['num_steps']} steps, {e['world_size']} × {e['device']}, "
        f"{e['precision']}, pid {e['pid']}"
    ),
    "compiled": lambda e: f"in {format_duration(e['seconds'])}",
    "step": _step,
    "checkpoint": lambda e: (
        f"step {e['step']}: {format_size(e['size_bytes'])} in {format_duration(e['seconds'])}"
    ),
    "mirrored": lambda e: (
        f"step {e['step']} in {format_duration(e['seconds'])}"
        if e["error"] is None
        else f"step {e['step']} not copied: {e['error']}"
    ),
    "resumed": _resumed,
    "evaluated": _evaluated,
    "preempted": lambda e: f"saved step {e['step']}: {e['reason']}",
    "finished": lambda e: f"step {e['step']}, weights {e['weights_digest'][:12]}",
    "registered": lambda e: f"{e['model']}@{e['version']}, digest {e['digest'][:12]}",
    "failed": lambda e: f"{e['error']}: {e['message']}",
}


def _facts(history: RunHistory) -> Table:
    table = Table(show_header=False, box=None)
    for name, fact in _named_facts(history):
        table.add_row(name, fact)
    return table


def _named_facts(history: RunHistory) -> Iterator[tuple[str, Text]]:
    yield "run", Text(history.run)
    yield "status", Text(history.status, style=_COLORS[history.status])
    yield "model", Text(history.model)
    if history.result:
        digest = str(history.result.get("digest", ""))[:12]
        yield "version", Text(f"{history.model}@{history.result.get('version')} · {digest}")
    if history.started_at is not None:
        yield "started", Text(_moment(history.started_at))
    yield "duration", Text(format_duration(history.timeline.total_s))
    if history.steps:
        yield "steps", Text(f"{history.steps[-1]['step']:,} of {history.num_steps:,}")
    speed = history.throughput
    if speed is not None:
        share = f", {speed.peak_share:.0%} of the chips' peak" if speed.peak_share else ""
        yield (
            "speed",
            Text(f"{speed.tokens_per_s:,.0f} tokens/s, {speed.padding:.1%} padding{share}"),
        )
    if history.dollars is not None:
        yield "cost", Text(f"${history.dollars:,.2f}")
    if history.plan.get("reason"):
        yield "precision", Text(str(history.plan["reason"]))
    yield "folder", Text(str(history.folder.root))


def _metrics(history: RunHistory) -> Table:
    best = history.best
    last = "final" if history.status == "finished" else "last"
    table = _table("metric", last, title="metrics")
    if best:
        table.add_column(f"best (step {best[0]:,})")
    for name, value in sorted(history.metrics.items()):
        row = [name.replace("_", " "), f"{value:.6g}"]
        if best:
            row.append(f"{best[1][name]:.6g}" if name in best[1] else "")
        table.add_row(*row)
    return table


def _attempts(history: RunHistory) -> Table:
    table = _table(
        "attempt", "workers", "precision", "from", "to", "repeated", "time lost", "outcome",
        title="attempts",
    )  # fmt: skip
    for one in history.attempts:
        table.add_row(
            str(one.number),
            f"{one.world_size} × {one.device}",
            one.precision,
            f"step {one.resumed_from or 0:,}",
            f"step {one.last_step:,}",
            f"{one.num_repeated:,} steps" if one.num_repeated else "–",
            format_duration(one.lost_s) if one.lost_s else "–",
            one.outcome,
        )
    return table


def _table(first: str, *others: str, title: str | None = None) -> Table:
    """Make a table that fits a terminal of 80 columns; its first column is never cut."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name)
    return table


def _note(one: Finding, *, urgent: bool) -> Padding:
    text = Text.assemble(("why: " if urgent else ""), (one.what, "red" if urgent else ""))
    if one.advice:
        text.append(f"\n→ {one.advice}")
    return Padding(text, (0, 0, 0, 2))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%b %d %H:%M")
