"""Each start of a run's workers: how far it came, how it ended, what its end cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kovar.events import DRIVER_RANK
from kovar.training.history.moment import Event, leading, number, seconds_of

Outcome = Literal["finished", "failed", "crashed", "preempted", "interrupted", "running"]


@dataclass
class Attempt:
    """One start of the workers. Moments are seconds since 1970."""

    number: int
    started_at: float
    last_sign_at: float
    world_size: int = 1
    device: str = ""
    precision: str = ""
    resumed_from: int | None = None
    ignored: tuple[str, ...] = ()
    """Checkpoints that did not verify, with reasons."""
    last_step: int = 0
    """The last one that was reported."""
    num_repeated: int = 0
    """Steps that an earlier attempt had already done."""
    lost_s: float = 0.0
    """Seconds from its end until its last step was reached again."""
    outcome: Outcome = "running"
    cause: str | None = None
    """Why it ended, as far as the log says."""


@dataclass(frozen=True)
class Failure:
    """One `failed` event."""

    at: float
    attempt: int
    rank: int
    error: str
    message: str


@dataclass
class _Reader:
    attempts: list[Attempt] = field(default_factory=list)
    reached: int = 0

    def take(self, event: Event) -> None:
        moment, kind = seconds_of(event), event.get("event")
        if kind == "started" and event.get("rank") == 0:
            self._begin(event, moment)
        if not self.attempts:
            return
        current = self.attempts[-1]
        match kind:
            case "queued" | "placing":
                self._give_up("interrupted" if kind == "queued" else "crashed")
            case "resumed":
                current.resumed_from = int(number(event, "step"))
                current.ignored = tuple(str(reason) for reason in event.get("ignored") or ())
                current.num_repeated = max(0, self.reached - current.resumed_from)
                self._reach(current.resumed_from, moment)
            case "step":
                self._take_step(current, int(number(event, "step")), moment)
            case "rolled_back":
                current.precision = str(event.get("precision", ""))
            case "finished":
                current.outcome = "finished"
            case "preempted":
                current.outcome, current.cause = "preempted", str(event.get("reason"))
            case "failed" if current.outcome == "running":
                current.outcome = "crashed" if event.get("rank") == DRIVER_RANK else "failed"
                current.cause = f"{event.get('error')}: {event.get('message')}"
        if event.get("rank") == 0:
            current.last_sign_at = moment

    def _begin(self, event: Event, moment: float) -> None:
        self._give_up("crashed")
        self.attempts.append(
            Attempt(
                number=int(number(event, "attempt")),
                started_at=moment,
                last_sign_at=moment,
                world_size=int(number(event, "world_size")) or 1,
                device=str(event.get("device", "")),
                precision=str(event.get("precision", "")),
            )
        )

    def _take_step(self, current: Attempt, step: int, moment: float) -> None:
        if not current.last_step and current.resumed_from is None:
            current.num_repeated = self.reached
        current.last_step = step
        self._reach(step, moment)
        self.reached = max(self.reached, step)

    def _reach(self, step: int, moment: float) -> None:
        """End the loss of earlier attempts that came no further than a step."""
        for earlier in self.attempts[:-1]:
            if not earlier.lost_s and step >= earlier.last_step:
                earlier.lost_s = moment - earlier.last_sign_at

    def _give_up(self, outcome: Outcome) -> None:
        if self.attempts and self.attempts[-1].outcome == "running":
            self.attempts[-1].outcome = outcome


def read_attempts(events: Sequence[Event], *, lives: bool) -> tuple[Attempt, ...]:
    """Return the attempts of a log in their order.

    Args:
        events: the whole log.
        lives: a driver executes the run, so that the last attempt may go on.
    """
    reader = _Reader()
    for event in leading(events):
        reader.take(event)
    if reader.attempts and reader.attempts[-1].outcome == "running" and not lives:
        reader.attempts[-1].outcome = "interrupted"
    return tuple(reader.attempts)


def read_failures(events: Sequence[Event]) -> tuple[Failure, ...]:
    """Return what the log says of failures, in order of time."""
    return tuple(
        Failure(
            at=seconds_of(event),
            attempt=int(number(event, "attempt")),
            rank=int(event.get("rank", DRIVER_RANK)),
            error=str(event.get("error", "")),
            message=str(event.get("message", "")),
        )
        for event in leading(events)
        if event.get("event") == "failed"
    )
