"""What reports know of a sweep besides its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kovar.tuning.dimension import Choice, Dimension, Grid, is_logarithmic
from kovar.tuning.spec import SweepSpec

Mode = Literal["max", "min"]

_FAR: Final = 8
_PREFIXES: Final = ("training.", "resources.worker.", "resources.")


@dataclass(frozen=True)
class SweepFacts:
    """The part of a sweep that its results are read by.

    Args:
        name: of the sweep.
        metric: that ranks the trials.
        mode: whether more or less of the metric is better.
        paths: fields that vary, as dotted paths, in the order of the spec.
        log_paths: those that vary on a logarithmic scale.
        objectives: what the sweep weighs against each other, if it does: metrics and expenses.
        currency: of the prices.
    """

    name: str
    metric: str
    mode: Mode
    paths: tuple[str, ...]
    log_paths: frozenset[str] = frozenset()
    objectives: tuple[str, ...] = ()
    currency: str = "$"

    @property
    def sign(self) -> int:
        """1 where larger is better, else −1: a metric times its sign is to be made large."""
        return 1 if self.mode == "max" else -1

    def short(self, path: str) -> str:
        """Return the name of a field as tables show it: without the section, if that is clear."""
        return short_names(self.paths).get(path, path)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, which `of_json` reads back."""
        return {
            "name": self.name,
            "metric": self.metric,
            "mode": self.mode,
            "paths": list(self.paths),
            "log_paths": sorted(self.log_paths),
            "objectives": list(self.objectives),
            "currency": self.currency,
        }

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> SweepFacts:
        """Read what `to_json` returned."""
        return cls(
            name=value["name"],
            metric=value["metric"],
            mode=value["mode"],
            paths=tuple(value["paths"]),
            log_paths=frozenset(value["log_paths"]),
            objectives=tuple(value["objectives"]),
            currency=value["currency"],
        )


def facts_of(spec: SweepSpec, *, currency: str = "$") -> SweepFacts:
    """Return what reports need of a spec whose metric and mode are resolved."""
    return SweepFacts(
        name=spec.name,
        metric=spec.metric,
        mode="min" if spec.mode == "min" else "max",
        paths=tuple(spec.search),
        log_paths=frozenset(p for p, d in spec.search.items() if _is_log(d)),
        objectives=spec.objectives,
        currency=currency,
    )


def _is_log(dimension: Dimension) -> bool:
    """Return whether values are drawn on a logarithmic scale: listed ones if they span far."""
    if not isinstance(dimension, Grid | Choice):
        return is_logarithmic(dimension)
    numbers = [v for v in dimension.values if isinstance(v, int | float) and v > 0]
    return len(numbers) == len(dimension.values) and max(numbers) >= _FAR * min(numbers)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return path → the path without its section, where that leaves no two alike."""
    short = {path: _without_section(path) for path in paths}
    names = list(short.values())
    return {path: name if names.count(name) == 1 else path for path, name in short.items()}


def _without_section(path: str) -> str:
    return next((path.removeprefix(p) for p in _PREFIXES if path.startswith(p)), path)
