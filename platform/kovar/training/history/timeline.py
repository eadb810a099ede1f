"""Where the wall time of a run went, second for second, from its event log alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from kovar.training.history.moment import Event, leading, number, seconds_of

Phase = Literal[
    "preparing",
    "downloading",
    "tokenizing",
    "queued",
    "starting",
    "placing",
    "compiling",
    "stepping",
    "checkpointing",
    "evaluating",
    "recovering",
    "registering",
    "stopped",
    "other",
]

MEANING: Final[dict[Phase, str]] = {
    "preparing": "checks, reading model and data",
    "downloading": "fetching model and data",
    "tokenizing": "turning texts into tokens",
    "queued": "from submission to plan",
    "starting": "Ray, workers, model",
    "placing": "waiting for hardware",
    "compiling": "torch.compile",
    "stepping": "training steps",
    "checkpointing": "waiting for a checkpoint",
    "evaluating": "scoring the evaluation split",
    "recovering": "from a crash until caught up",
    "registering": "storing the version",
    "stopped": "no process executed the run",
    "other": "not told by the log",
}

_RESOLUTION_S: Final = 1e-5
"""Events carry microseconds, and a moment since 1970 has some 1e-7 s as a float."""

_TIMED: Final[dict[str, Phase]] = {
    "compiled": "compiling",
    "checkpoint": "checkpointing",
    "evaluated": "evaluating",
}
"""Events that say how many seconds their work took."""


@dataclass(frozen=True)
class Span:
    """One stretch of time; moments are seconds since 1970."""

    phase: Phase
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.end - self.start


@dataclass(frozen=True)
class Timeline:
    """Spans without gaps, from the submission to the last sign of life."""

    spans: tuple[Span, ...]

    @property
    def total_s(self) -> float:
        """Wall time in seconds: the sum over all phases."""
        return self.spans[-1].end - self.spans[0].start if self.spans else 0.0

    @property
    def seconds(self) -> dict[Phase, float]:
        """Seconds per phase, in the order in which a run goes through them; none is zero."""
        summed = dict.fromkeys(get_args(Phase), 0.0)
        for span in self.spans:
            summed[span.phase] += span.seconds
        return {phase: value for phase, value in summed.items() if value > 0}


def make_timeline(events: Iterable[Event], *, until: float | None = None) -> Timeline:
    """Give every second of a run to one phase.

    Args:
        events: the whole log.
        until: a later sign of life, or now for a run that goes on; in seconds since 1970.
    """
    walker = _Walker()
    for event in leading(events):
        walker.take(event)
    if until is not None:
        walker.fill(walker.waiting_for, until)
    return Timeline(tuple(_joined(walker.spans)))


class _Walker:
    """Goes through a log; knows what a run is about to do and which steps are repeated."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.waiting_for: Phase = "other"
        self._cursor: float | None = None
        self._reached = 0
        self._newest = 0
        """The newest step of this attempt that was told."""
        self._started = False
        self._stepped = False

    def take(self, event: Event) -> None:
        """Give the time since the event before to phases."""
        moment = seconds_of(event)
        if self._cursor is None:
            self._cursor = moment
        match event.get("event"):
            case "queued":
                self.fill("stopped", moment)
                self._started, self._stepped, self.waiting_for = False, False, "queued"
            case "prepared":
                self._insert_preparation(event)
            case "planned" | "placed":
                self._move("starting", moment)
            case "placing":
                self._begin_attempt()
                self._move("placing", moment)
            case "started" | "resumed":
                if event["event"] == "started" and self._stepped:
                    self._begin_attempt()
                self._started = True
                self._move("starting", moment)
            case "step":
                self._take_step(event, moment)
            case "compiled" | "checkpoint" | "evaluated" | "preparing":
                self._take_timed(event, moment)
            case "rolled_back" | "preempted":
                self.fill(self.waiting_for, moment)
                self.waiting_for, self._stepped, self._newest = "recovering", False, 0
            case "finished" | "registered":
                self._move("registering", moment)
            case "failed":
                self._move(self.waiting_for, moment)

    def fill(self, phase: Phase, until: float) -> None:
        """Give the time from the cursor on to a phase; clocks of machines may disagree."""
        start = until if self._cursor is None else self._cursor
        if until - start > _RESOLUTION_S:
            self.spans.append(Span(phase, start, until))
            self._cursor = until

    def _move(self, next_phase: Phase, moment: float) -> None:
        """End the phase that the run was in, and enter another."""
        if self.waiting_for != "recovering":
            self.fill(self.waiting_for, moment)
            self.waiting_for = next_phase
        else:
            self.fill("recovering", moment)

    def _begin_attempt(self) -> None:
        """A second start of the workers within one submission repairs a crash."""
        if self._started and self._reached:
            self.waiting_for = "recovering"
        self._stepped, self._newest = False, 0

    def _take_step(self, event: Event, moment: float) -> None:
        step, seconds = int(number(event, "step")), number(event, "seconds")
        self._newest = step
        if step <= self._reached:
            self.fill("recovering", moment)
        else:
            before = self.waiting_for if not self._stepped else "other"
            self.fill(before, moment - seconds)
            self.fill("stepping", moment)
            self._reached = step
        self._stepped = True
        self.waiting_for = "stepping"

    def _take_timed(self, event: Event, moment: float) -> None:
        phase = _TIMED.get(event["event"], "evaluating")
        if "seconds" in event:
            self.fill(self.waiting_for, moment - number(event, "seconds"))
        # The final evaluation may be that of an earlier step: the best one.
        repeated = "step" in event and number(event, "step") < self._reached
        if phase == "checkpointing" and number(event, "step") < self._newest:
            repeated = False  # told late: its writing went on beside the steps after it
        if repeated and phase != "compiling" and not event.get("final"):
            phase = "recovering"
        self.fill(phase, moment)
        if event["event"] == "preparing":
            self.waiting_for = "evaluating"
        elif event.get("final"):
            self.waiting_for = "registering"

    def _insert_preparation(self, event: Event) -> None:
        """Cut the time before `queued` into what its event says was done then."""
        moment = self._cursor if self._cursor is not None else seconds_of(event)
        start = moment - number(event, "seconds")
        while self.spans and self.spans[-1].end > start:
            last = self.spans.pop()
            if last.start < start:
                self.spans.append(Span(last.phase, last.start, start))
        self._cursor = self.spans[-1].end if self.spans else start
        told = event.get("spans")
        for what, seconds in told.items() if isinstance(told, dict) else ():
            if isinstance(seconds, int | float):
                self.fill(_preparation(str(what)), min(moment, self._cursor + seconds))
        self.fill("preparing", moment)


def _preparation(what: str) -> Phase:
    verb = what.partition(" ")[0]
    for phase in ("downloading", "tokenizing"):
        if verb == phase:
            return phase
    return "preparing"


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Make neighbors of one phase one span."""
    held: Span | None = None
    for span in spans:
        if held is not None and held.phase == span.phase:
            held = Span(span.phase, held.start, span.end)
            continue
        if held is not None:
            yield held
        held = span
    if held is not None:
        yield held
