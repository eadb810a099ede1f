"""What trials differ in: the fields that a sweep varies, and what followed from them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.facts import SweepFacts, short_names

ABSENT: Final = "–"
"""Shown where a conditional field does not apply."""


@dataclass(frozen=True)
class Dimension:
    """One field over some configurations.

    Args:
        path: dotted path.
        name: as pictures show it.
        values: of each configuration; None where the field does not apply.
        is_log: whether it is drawn on a logarithmic scale.
    """

    path: str
    name: str
    values: tuple[JsonValue, ...]
    is_log: bool

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(_is_number(value) for value in self.values)

    @property
    def numbers(self) -> list[float]:
        """The values of a numeric dimension, on its scale: logarithms (base 10) if `is_log`."""
        found = [float(value) for value in self.values if isinstance(value, int | float)]
        return [math.log10(one) for one in found] if self.is_log else found

    @property
    def texts(self) -> list[str]:
        """The values as pictures show them."""
        return [shown(value) for value in self.values]

    @property
    def categories(self) -> list[str]:
        """The distinct values in their order: numbers, then texts, then what is absent."""
        pairs = dict(zip(self.texts, self.values, strict=True)).items()
        return [text for text, _ in sorted(pairs, key=lambda pair: _order(*pair))]

    @property
    def num_distinct(self) -> int:
        """How many values there are."""
        return len(set(self.texts))


def dimensions_of(configurations: Sequence[Configuration], facts: SweepFacts) -> list[Dimension]:
    """Return what varies: the searched fields, then the resolved precision and the node types.

    Those with a single value over all configurations are left out.
    """
    names = short_names(facts.paths)
    found = [
        _dimension(path, names[path], [c.point.get(path) for c in configurations], facts)
        for path in facts.paths
    ]
    if "precision" not in facts.paths:
        found.append(
            _dimension("precision", "precision", [c.precision for c in configurations], facts)
        )
    found.append(_dimension("chip", "runs on", [c.where or None for c in configurations], facts))
    return [one for one in found if one.num_distinct > 1]


def shown(value: JsonValue) -> str:
    """Write a value shortly: 2e-05, bf16, –."""
    match value:
        case None:
            return ABSENT
        case bool():
            return str(value).lower()
        case float():
            small = value and abs(value) < 1e-3
            text = f"{value:.2e}" if small else f"{value:.3g}"
            return re.sub(r"\.?0*e([+-])0?", r"e\1", text).replace("e+", "e")
        case dict():
            return ", ".join(f"{key}: {shown(one)}" for key, one in value.items())
    return str(value)


def _dimension(path: str, name: str, values: Sequence[JsonValue], facts: SweepFacts) -> Dimension:
    positive = all(isinstance(v, int | float) and v > 0 for v in values)
    return Dimension(path, name, tuple(values), is_log=positive and path in facts.log_paths)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(text: str, value: JsonValue) -> tuple[int, float, str]:
    if _is_number(value):
        return 0, float(value), ""  # type: ignore[arg-type]
    return (2 if text == ABSENT else 1), 0.0, text
