"""Conductors of made-up trials: a search that follows a script, a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovar.tuning.conductor import Conductor
from kovar.tuning.ledger import Ledger
from kovar.tuning.search import Point, Search
from kovar.tuning.venue import Room, Venue


class ScriptedSearch(Search):
    """Proposes points in order, and remembers what it hears."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self.heard: list[tuple[Any, ...]] = []

    def ask(self, number: int) -> Point | None:
        self.heard.append(("ask", number))
        return self.points[number - 1] if number <= len(self.points) else None

    def recall(self, number: int, point: Point) -> None:
        assert point == self.points[number - 1]
        self.heard.append(("ask", number))

    def report(self, number: int, step: int, scores: Mapping[str, float]) -> None:
        self.heard.append(("report", number, step, scores["accuracy"]))

    def tell(
        self, number: int, scores: Mapping[str, float] | None, *, stopped: bool = False
    ) -> None:
        shown = None if scores is None else round(scores["accuracy"], 6)
        self.heard.append(("tell", number, shown, stopped))


@dataclass(frozen=True)
class FakeTrial:
    """As much of a trial as a conductor looks at."""

    number: int
    configuration: int
    seed: int
    point: Point
    max_failures: int = 3


def fake_trials(seeds: int = 1):
    """Return what makes the trials of a configuration."""

    def trials_of(configuration: int, point: Point) -> list[FakeTrial]:
        first = (configuration - 1) * seeds + 1
        return [FakeTrial(first + n, configuration, n, point) for n in range(seeds)]

    return trials_of


class Clock:
    """UNIX time, as a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def conductor_in(
    folder: Path,
    points: Sequence[Point],
    *,
    seeds: int = 1,
    room: Room | None = None,
    refusal: Any = lambda trial: None,
    price: Any = lambda trial, node_type: 36.0,
    clock: Clock | None = None,
    retries: bool = False,
    **options: Any,
) -> Conductor:
    """Open the ledger in `folder` and take up what it holds."""
    clock = clock or Clock()
    venue = Venue(
        room or Room(),
        group=lambda trial: str(trial.point.get("chip", "cpu")),
        refusal=refusal,
        price=price,
    )
    search = ScriptedSearch(points)
    conductor = Conductor(
        search,
        trials_of=fake_trials(seeds),
        ledger=Ledger(folder / "ledger.jsonl", clock=clock),
        venue=venue,
        clock=clock,
        **options,
    )
    conductor.heard = search.heard  # type: ignore[attr-defined]
    conductor.open(retries=retries)
    return conductor


def start(conductor: Conductor) -> int | None:
    """Start the next trial; return its number."""
    trial = conductor.next()
    if trial is not None:
        conductor.write("started", trial=trial.number)
    return None if trial is None else trial.number


def report(conductor: Conductor, number: int, step: int, accuracy: float, **fields: Any) -> bool:
    """Let a trial tell an evaluation."""
    metrics = {"accuracy": accuracy}
    told = {"step": step, "seconds": float(step), "metrics": metrics, "stop": False, **fields}
    return conductor.write("reported", trial=number, **told)


def finish(conductor: Conductor, number: int, accuracy: float) -> None:
    """Let a trial end with a result."""
    end = {"status": "finished", "reason": None, "metrics": {"accuracy": accuracy}}
    conductor.write("reported", trial=number, stop=False, end=end)
    conductor.ended(number, "finished")
