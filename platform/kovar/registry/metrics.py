"""Metrics under flat names, as gates, search and comparisons know them."""

from collections.abc import Iterator, Mapping
from typing import Any


def numbers_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Flatten metrics: {"per_class": {"good": {"f1": 0.8}}} gives ("per_class.good.f1", 0.8)."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from numbers_of(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
