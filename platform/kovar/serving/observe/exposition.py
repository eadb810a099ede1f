"""Prometheus' text format, read.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one moment."""

    name: str
    labels: Mapping[str, str]
    value: float


def read_samples(text: str, *, prefix: str = "") -> Iterator[Sample]:
    """Yield the samples whose names begin with a prefix; lines that are none are left out."""
    for line in text.splitlines():
        if not line.startswith(prefix) or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        pairs = _LABEL.findall(found[2] or "")
        labels = {name: re.sub(r'\\[\\"n]', lambda m: _ESCAPES[m[0]], raw) for name, raw in pairs}
        yield Sample(found[1], MappingProxyType(labels), value)


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return a quantile of a histogram, as Prometheus' `histogram_quantile` does.

    Args:
        share: for example 0.99.
        buckets: upper end and number of values up to it, in ascending order, the last one infinite.

    Returns:
        None without values; the last finite end where the quantile lies above it.
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    rank, below, low = share * total, 0.0, 0.0
    for end, count in buckets:
        if count >= rank:
            if math.isinf(end):
                return low
            inside = count - below
            return low + (end - low) * ((rank - below) / inside if inside else 1.0)
        below, low = count, end
    return low
