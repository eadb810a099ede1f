"""A sweep while it runs: a table that is redrawn in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kovar.training.tasks import title
from kovar.tuning.report.facts import short_names
from kovar.tuning.spending import Allowance, Price, spending

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from kovar.tuning.ledger import Entry
    from kovar.tuning.spec import SweepSpec
    from kovar.tuning.state import SweepState, TrialState

DRAW_EVERY_S: Final = 0.5
PLAIN_EVERY_S: Final = 30.0
MAX_ROWS: Final = 12


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is.

    Args:
        num_trials: most trials that it can have.
        counts: how many trials are how: running, waiting, or as they ended.
        best: the best trial so far that may win, and its score.
        seconds: of wall-clock time so far.
        remaining_s: predicted from the trials that have ended; None before the first has.
        cost: so far; None where no price is declared.
    """

    num_trials: int
    counts: Counter[str]
    best: tuple[TrialState, float] | None
    seconds: float
    remaining_s: float | None
    cost: float | None

    @property
    def num_ended(self) -> int:
        """Trials that have ended, however."""
        return self.counts.total() - self.counts["running"] - self.counts["waiting"]


def status_of(
    state: SweepState, spec: SweepSpec, *, num_trials: int, price: Price, now: float
) -> SweepStatus:
    """Sum a sweep up.

    Args:
        state: of the sweep.
        spec: with its metric and mode resolved.
        num_trials: most trials that it can have.
        price: per hour of what a trial holds.
        now: UNIX time.
    """
    trials = state.trials.values()
    counts: Counter[str] = Counter(
        trial.status or ("running" if trial.is_running else "waiting") for trial in trials
    )
    spent = spending(state, price, now)
    ended = [trial.seconds(now) for trial in trials if trial.status in ("finished", "stopped")]
    begun = sum(trial.seconds(now) for trial in trials if trial.status is None)
    remaining: float | None = None
    if ended:
        num_ended = counts.total() - counts["running"] - counts["waiting"]
        left = max(0.0, sum(ended) / len(ended) * (num_trials - num_ended) - begun)
        remaining = left / max(1, counts["running"])
    return SweepStatus(num_trials, counts, _best(state, spec), spent.seconds, remaining, spent.cost)


def score_of(trial: TrialState, spec: SweepSpec) -> float | None:
    """Return the score by which a trial stands: the final one, or else the best or last so far."""
    if trial.status in ("diverged", "failed", "excluded"):
        return None
    if trial.end is not None and spec.metric in trial.end["metrics"]:
        return float(trial.end["metrics"][spec.metric])
    known = [one.metrics[spec.metric] for one in trial.history if spec.metric in one.metrics]
    if not known:
        return None
    best = max if spec.mode == "max" else min
    return known[-1] if spec.select == "last" else best(known)


def _best(state: SweepState, spec: SweepSpec) -> tuple[TrialState, float] | None:
    scored = [
        (trial, score)
        for trial in state.trials.values()
        if trial.status != "stopped" and (score := score_of(trial, spec)) is not None
    ]
    sign = 1 if spec.mode == "max" else -1
    return max(scored, key=lambda one: (sign * one[1], -one[0].number), default=None)


@dataclass
class LiveSweep:
    """Shows a sweep; it is looked at from the thread that runs the trials.

    Args:
        spec: with its metric and mode resolved.
        console: where to.
        num_trials: most trials that it can have.
        allowance: what it may spend.
    """

    spec: SweepSpec
    console: Console
    num_trials: int
    allowance: Allowance = field(default_factory=Allowance)
    _live: Live | None = None
    _drawn: float = -PLAIN_EVERY_S

    @contextmanager
    def showing(self) -> Iterator[LiveSweep]:
        """Keep the table while the block runs."""
        if not self.console.is_terminal or self.console.quiet:
            yield self
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def hear(self, entry: Entry, state: SweepState) -> None:
        """Tell what is worth a line: how a trial ended, and what happened to one that goes on."""
        number = entry.fields.get("trial")
        if entry.kind in ("ended", "excluded"):
            self._say(ended_line(state.trials[entry.fields["trial"]], self.spec))
        elif entry.kind == "interrupted":
            self._say(f"  trial {number}: {entry.fields['reason']}; it goes on")
        elif entry.kind == "reported" and entry.fields.get("incident"):
            self._say(f"  trial {number}: {entry.fields['incident']}")

    def look(self, state: SweepState, price: Price, now: float) -> None:
        """Draw what is known, unless that was done a moment ago."""
        every = PLAIN_EVERY_S if self._live is None else DRAW_EVERY_S
        if time.monotonic() - self._drawn < every:
            return
        self._drawn = time.monotonic()
        status = status_of(state, self.spec, num_trials=self.num_trials, price=price, now=now)
        if self._live is None:
            self._say(f"  {summary(status, self.spec, self.allowance)}")
            return
        shown = Group(
            running_table(state, self.spec, now), Text(summary(status, self.spec, self.allowance))
        )
        self._live.update(shown, refresh=True)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def summary(status: SweepStatus, spec: SweepSpec, allowance: Allowance) -> str:
    """Return one line: how far, the best so far, time and cost."""
    order = ("running", "waiting", "finished", "stopped", "diverged", "failed", "excluded")
    counts = [f"{status.counts[name]} {name}" for name in order if status.counts[name]]
    parts = [f"{status.num_ended}/{status.num_trials} trials: {', '.join(counts) or 'none yet'}"]
    if status.best is not None:
        trial, score = status.best
        parts.append(f"best {title(spec.metric)} {score:.4f} (trial {trial.number})")
    parts.append(f"{_duration(status.seconds)} so far")
    if status.remaining_s is not None and status.num_ended < status.num_trials:
        parts.append(f"about {_duration(status.remaining_s)} left")
    if status.cost is not None:
        limit = "" if allowance.cost is None else f" of ${allowance.cost:,.2f}"
        parts.append(f"${status.cost:,.4f}{limit}")
    return " · ".join(parts)


def ended_line(trial: TrialState, spec: SweepSpec) -> str:
    """Return one line about a trial that has ended."""
    names = short_names(tuple(spec.search))
    point = ", ".join(f"{names.get(path, path)} {_value(v)}" for path, v in trial.point.items())
    score = score_of(trial, spec)
    shown = "" if score is None else f", {title(spec.metric)} {score:.4f}"
    reason = f": {trial.reason}" if trial.reason else ""
    return f"  trial {trial.number} ({point}): {trial.status}{shown}{reason}"


def running_table(state: SweepState, spec: SweepSpec, now: float) -> RenderableType:
    """Draw the trials that run."""
    names = short_names(tuple(spec.search))
    table = Table(title=spec.name, title_justify="left", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for path in spec.search:
        table.add_column(Text(names[path]), justify="right", overflow="fold")
    for column in ("step", title(spec.metric), "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("node", no_wrap=True)
    running = [trial for trial in state.trials.values() if trial.is_running]
    for trial in running[:MAX_ROWS]:
        score = score_of(trial, spec)
        planned = f"/{trial.num_steps_planned}" if trial.num_steps_planned else ""
        table.add_row(
            str(trial.number),
            *[Text(_value(trial.point.get(path))) for path in spec.search],
            f"{trial.num_steps}{planned}",
            "–" if score is None else f"{score:.4f}",
            f"{trial.seconds(now):.0f}",
            Text(trial.stays[-1].node or "starting"),
        )
    if len(running) > MAX_ROWS:
        table.add_row(f"+{len(running) - MAX_ROWS}")
    return table


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
