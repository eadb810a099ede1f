"""What a sweep asks of a searcher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

Point = dict[str, JsonValue]
"""The values of one configuration: dotted path → value, without the dimensions that do not vary."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an earlier sweep found at one point.

    Args:
        point: its values.
        scores: name → value.
    """

    point: Point
    scores: Mapping[str, float]


class Search(ABC):
    """Proposes configurations.

    Its state is a pure function of the spec, the seed and the calls so far; whoever writes the
    calls down can rebuild it.
    """

    @abstractmethod
    def ask(self, number: int) -> Point | None:
        """Propose a configuration.

        Args:
            number: counts from 1, and up by one from call to call.

        Returns:
            None when there is no other configuration, now and for good.
        """

    @abstractmethod
    def recall(self, number: int, point: Point) -> None:
        """Take a proposal over that was written down; stands for `ask` when calls are replayed."""

    def report(self, number: int, step: int, scores: Mapping[str, float]) -> None:  # noqa: B027
        """Hear an evaluation of a configuration that still runs."""

    def tell(  # noqa: B027
        self, number: int, scores: Mapping[str, float] | None, *, stopped: bool = False
    ) -> None:
        """Hear how a configuration ended.

        Args:
            number: as it was asked for.
            scores: the means over its seeds; None where there are none, which counts as worse
                than any.
            stopped: a scheduler ended it early: its scores are those of its last evaluation.
        """
