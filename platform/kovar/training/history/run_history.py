"""What a run's folder tells of it, without the cluster that executed it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kovar.events import read_events
from kovar.training.folder import RunFolder
from kovar.training.history.attempt import Attempt, Failure, read_attempts, read_failures
from kovar.training.history.moment import Event, number, seconds_of
from kovar.training.history.score import better, primary_metric
from kovar.training.history.status import LIVE, Status, driver_lives, status_of
from kovar.training.history.timeline import Timeline, make_timeline


@dataclass(frozen=True)
class Throughput:
    """How fast the steps were, over the steps that were not repeated."""

    tokens_per_s: float
    """Without padding, while stepping."""
    padding: float
    """Share of all tokens."""
    flops_per_s: float | None
    """Achieved by all workers together; None when the log does not say what a token costs."""
    peak_share: float | None
    """Of the peak of all chips; None when it is not known."""


@dataclass(frozen=True)
class RunHistory:
    """One run as its folder tells it."""

    folder: RunFolder
    events: tuple[Event, ...]
    status: Status
    timeline: Timeline
    attempts: tuple[Attempt, ...]
    failures: tuple[Failure, ...]
    spec: Mapping[str, Any]
    plan: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def run(self) -> str:
        """The run's id."""
        return self.folder.run

    @property
    def kind(self) -> str:
        """What kind of spec it executes."""
        return str(self.spec.get("kind") or self._queued.get("kind") or "finetune")

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.spec.get("name") or self._queued.get("spec") or self.run)

    @property
    def started_at(self) -> float | None:
        """When the run was submitted, in seconds since 1970; None for an empty log."""
        return self.timeline.spans[0].start if self.timeline.spans else None

    @property
    def num_steps(self) -> int:
        """Planned steps; 0 before the workers started."""
        return int(max((number(e, "num_steps") for e in self._of("started")), default=0))

    @property
    def steps(self) -> tuple[Event, ...]:
        """The `step` events, repeated ones as the last attempt saw them."""
        latest = {int(number(e, "step")): e for e in self._of("step")}
        return tuple(latest[step] for step in sorted(latest))

    @property
    def evaluations(self) -> tuple[Event, ...]:
        """The evaluations during training, in the order of steps."""
        found = (e for e in self._of("evaluated") if not e.get("final"))
        latest = {int(number(e, "step")): e for e in found}
        return tuple(latest[step] for step in sorted(latest))

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics, or those of the last evaluation."""
        final = [e for e in self._of("evaluated") if e.get("final")]
        last = (final or self.evaluations or ({},))[-1].get("metrics")
        return _numbers(last if isinstance(last, dict) else {})

    @property
    def best(self) -> tuple[int, dict[str, float]] | None:
        """Step and metrics of the evaluation that was best by the run's metric."""
        found: tuple[int, dict[str, float]] | None = None
        for event in self.evaluations:
            metrics = _numbers(event.get("metrics"))
            name = primary_metric(self.events, metrics)
            if name is None or (found is not None and name not in found[1]):
                continue
            if found is None or better(name, metrics[name], found[1][name]):
                found = (int(number(event, "step")), metrics)
        return found

    @property
    def score(self) -> tuple[str, float] | None:
        """Name and value of the metric that the run is judged by, as last measured."""
        name = primary_metric(self.events, self.metrics)
        return None if name is None else (name, self.metrics[name])

    @property
    def throughput(self) -> Throughput | None:
        """Speed over all steps; None before the first."""
        seconds = sum(number(e, "seconds") for e in self.steps)
        tokens = sum(number(e, "tokens") for e in self.steps)
        if seconds <= 0 or tokens <= 0:
            return None
        padded = sum(number(e, "tokens") / (1 - _share(e)) for e in self.steps)
        started = next(iter(self._of("started")[-1:]), {})
        per_token, peak = number(started, "flops_per_token"), number(started, "peak_flops")
        achieved = per_token * tokens / seconds or None
        chips = number(started, "world_size") or 1
        return Throughput(
            tokens_per_s=tokens / seconds,
            padding=1 - tokens / padded,
            flops_per_s=achieved,
            peak_share=achieved / (peak * chips) if achieved and peak else None,
        )

    @property
    def dollars(self) -> float | None:
        """US dollars while a process executed the run; None without a price in the plan."""
        cost = self.plan.get("cost")
        price = cost.get("per_hour") if isinstance(cost, dict) else None
        if not isinstance(price, int | float):
            return None
        return price * (self.timeline.total_s - self.timeline.seconds.get("stopped", 0.0)) / 3600

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types: everything but the single steps."""
        throughput, best = self.throughput, self.best
        return {
            "run": self.run,
            "folder": str(self.folder.root),
            "kind": self.kind,
            "model": self.model,
            "status": self.status,
            "started_at": moment_json(self.started_at),
            "seconds": self.timeline.total_s,
            "time_split": dict(self.timeline.seconds),
            "last_step": int(number(self.steps[-1], "step")) if self.steps else 0,
            "num_steps": self.num_steps,
            "metrics": self.metrics,
            "best": {"step": best[0], "metrics": best[1]} if best else None,
            "throughput": asdict(throughput) if throughput else None,
            "dollars": self.dollars,
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "failures": [asdict(failure) for failure in self.failures],
            "result": dict(self.result) or None,
        }

    def _of(self, kind: str) -> list[Event]:
        return [e for e in self.events if e.get("event") == kind and e.get("rank", 0) <= 0]

    @property
    def _queued(self) -> Event:
        return next(iter(self._of("queued")), {})


def read_history(
    folder: RunFolder, *, lives: bool | None = None, now: float | None = None
) -> RunHistory:
    """Read a run's folder; files that are missing or damaged tell nothing.

    Args:
        folder: the run's.
        lives: whether a driver executes it; asked for when absent.
        now: seconds since 1970; the clock when absent.
    """
    now = time.time() if now is None else now
    events = tuple(e for e in read_events(folder.events) if _is_timed(e))
    lives = driver_lives(folder, now=now) if lives is None else lives
    result = read_facts(folder.result)
    done = bool(result) or any(e.get("event") == "registered" for e in events[-1:])
    status = status_of(events, lives=lives, complete=done)
    return RunHistory(
        folder=folder,
        events=events,
        status=status,
        timeline=make_timeline(events, until=now if status in LIVE else None),
        attempts=read_attempts(events, lives=lives),
        failures=read_failures(events),
        spec=read_facts(folder.spec),
        plan=read_facts(folder.plan) or next((e for e in events if e["event"] == "planned"), {}),
        result=result,
    )


def read_facts(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent or damaged file has no facts."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def moment_json(moment: float | None) -> str | None:
    """Write a moment as ISO 8601 in UTC."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _is_timed(event: Event) -> bool:
    try:
        seconds_of(event)
    except (KeyError, TypeError, ValueError):
        return False
    return "event" in event


def _share(event: Event) -> float:
    return min(max(number(event, "padding"), 0.0), 0.999)


def _numbers(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
