"""What a user sees while a run works: bars on a terminal, plain lines elsewhere.

Everything shown comes from the run's event log, so the same view works for a run on a cluster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kovar.events import EventTail
from kovar.training.history.incident import incidents
from kovar.training.tasks import title

POLL_S = 0.25
PLAIN_LINE_EVERY_S = 10.0


class RunProgress:
    """Progress of everything a run does.

    Args:
        console: where to print; standard error by default, so that results can be piped.
        quiet: show nothing.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, quiet=quiet)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._spans: dict[str, tuple[float, float]] = {}

    def say(self, text: str) -> None:
        """Print one line; rich markup applies."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` of something long is finished; total 0 means unknown."""
        now = time.monotonic()
        self._spans[what] = (self._spans.get(what, (now,))[0], now)
        self._show(what, done, total, "")

    @property
    def spans(self) -> dict[str, float]:
        """Seconds from the first to the last report of each thing that was done."""
        return {what: end - start for what, (start, end) in self._spans.items()}

    @contextmanager
    def showing(self) -> Iterator[RunProgress]:
        """Draw bars while the block runs."""
        if not self.console.is_terminal:
            yield self
            return
        with Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        ) as bars:
            self._bars = bars
            try:
                yield self
            finally:
                self._bars = None
                self._tasks.clear()

    @contextmanager
    def following(self, events: Path, *, waiting_for: str) -> Iterator[None]:
        """Show a run's events as they are appended, while the block runs.

        Args:
            events: the run's event log.
            waiting_for: what is shown until the first event.
        """
        tail = EventTail(events)
        tail.read()
        stop = threading.Event()
        state: dict[str, Any] = {"waiting": waiting_for}
        thread = threading.Thread(
            target=self._follow, args=(tail, stop, state), name="run-progress", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def counting(self, what: str, *, total: int, count: Callable[[], int]) -> Iterator[None]:
        """Show how many of `total` are done, as `count` says, while the block runs."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(POLL_S):
                self(what, count(), total)

        self(what, 0, total)
        thread = threading.Thread(target=watch, name="count-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self(what, count(), total)

    def _follow(self, tail: EventTail, stop: threading.Event, state: dict[str, Any]) -> None:
        last = False
        self._show(state["waiting"], 0, 0, "")
        while True:
            for record in tail.read():
                self._event(record, state)
            if last:
                return
            last = stop.wait(POLL_S)

    def _event(self, record: dict[str, Any], state: dict[str, Any]) -> None:
        match record["event"]:
            case "started" if record["rank"] == 0:
                self._show(state["waiting"], 1, 1, "")
                state["total"], state["metric"] = record["num_steps"], record["metric"]
                self._show(
                    "training",
                    0,
                    record["num_steps"],
                    f"{record['world_size']} × {record['device']}, {record['precision']}",
                )
            case "step":
                rate = record["tokens"] / max(record["seconds"], 1e-9)
                state["note"] = (
                    f"loss {record['loss']:.3f}  lr {record['learning_rate']:.1e}  "
                    f"{rate:,.0f} tokens/s  padding {record['padding']:.0%}"
                )
                note = "  ".join(filter(None, (state["note"], state.get("score"))))
                self._show("training", record["step"], state.get("total", 0), note)
            case "evaluated" if not record.get("final"):
                name = state.get("metric", "loss")
                score = record["metrics"][name]
                state["score"] = f"{title(name)} {score:.3f}"
                self._say(f"  step {record['step']}: {title(name)} {score:.4f}")
            case "resumed":
                self._say(f"  resumed from step {record['step']}")
                for reason in record["ignored"]:
                    self._say(f"  [yellow]ignored checkpoint[/] {escape(reason)}")
            case "skipped" | "rolled_back" | "shrunk":
                for told in incidents([record]):
                    self._say(f"  [yellow]{escape(told)}[/]")
            case "measured":
                self._say(f"  measured: {record['micro_batch_tokens']:,} tokens fit in a pass")
            case "waiting":
                self._say(f"  waiting for {record['seconds']:.0f} s: {escape(record['reason'])}")
            case "preparing" if "total" in record:
                self._show(record["what"], record["done"], record["total"], "")

    def _say(self, text: str) -> None:
        console = self._bars.console if self._bars else self.console
        console.print(text, highlight=False, soft_wrap=True)

    def _show(self, what: str, done: int, total: int, note: str) -> None:
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=None, note="")
            self._bars.update(self._tasks[what], completed=done, total=total or None, note=note)
            return
        now = time.monotonic()
        finished = bool(total) and done >= total
        if finished or now - self._printed.get(what, -PLAIN_LINE_EVERY_S) >= PLAIN_LINE_EVERY_S:
            self._printed[what] = now
            amount = f" {done:,}/{total:,}" if total else ""
            line = f"  {what}{amount}  {note}".rstrip()
            self.console.print(line, highlight=False, soft_wrap=True)
