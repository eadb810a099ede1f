"""A search that proposes what a test says, and remembers what it hears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kovar.tuning.points import Point


class ScriptedSearch:
    """Proposes points in order.

    Args:
        points: of the configurations.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self.heard: list[tuple[Any, ...]] = []

    def ask(self, configuration: int) -> Point | None:
        self.heard.append(("ask", configuration))
        return self.points[configuration - 1] if configuration <= len(self.points) else None

    def recall(self, configuration: int, point: Point) -> None:
        assert point == self.points[configuration - 1]
        self.heard.append(("ask", configuration))

    def report(self, configuration: int, step: int, scores: Mapping[str, float]) -> None:
        self.heard.append(("report", configuration, step, dict(scores)))

    def tell(
        self, configuration: int, scores: Mapping[str, float] | None, *, stopped: bool = False
    ) -> None:
        shown = None if scores is None else scores["accuracy"]
        self.heard.append(("tell", configuration, shown, stopped))
