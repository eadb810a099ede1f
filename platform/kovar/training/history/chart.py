"""Line charts as inline SVG: drawn without a browser, readable without a script."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 560
HEIGHT: Final = 260
_LEFT: Final = 58
_RIGHT: Final = 14
_TOP: Final = 12
_BOTTOM: Final = 34
_MAX_POINTS: Final = 1000


@dataclass(frozen=True)
class Series:
    """One line: its points are (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]
    dotted: bool = False
    """Whether each point is marked: for few points far apart."""


@dataclass(frozen=True)
class Mark:
    """A vertical line with a word, for example where an attempt was resumed."""

    x: float
    text: str


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    marks: Sequence[Mark] = (),
    from_zero: bool = False,
    percent: bool = False,
    top: float | None = None,
    last: float = 0.0,
) -> str:
    """Draw lines over the steps of a run; nothing for series without points.

    Args:
        title: with the unit.
        series: at most five are told apart by color.
        marks: vertical lines.
        from_zero: let the vertical axis begin at zero.
        percent: write the vertical axis in percent.
        top: what the vertical axis never goes above.
        last: step that the horizontal axis reaches at least, so that charts can be compared.
    """
    thinned = (Series(one.name, _thinned(one.points), one.dotted) for one in series)
    drawn = [one for one in thinned if one.points]
    if not drawn:
        return ""
    values = [y for one in drawn for _, y in one.points]
    low, high = _bounds(min(values), max(values), from_zero=from_zero)
    high = high if top is None else max(min(high, top), low + 1e-9)
    right = max(1.0, last, *(x for one in drawn for x, _ in one.points))
    x_scale = _Scale(0.0, right, _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    body = [
        *_horizontal_grid(y_scale, percent=percent),
        *_step_axis(x_scale),
        *(_mark(mark, x_scale) for mark in marks if 0 <= mark.x <= x_scale.high),
        *(_line(number, one, x_scale, y_scale) for number, one in enumerate(drawn, start=1)),
        f'<path class="hair" d="M0 {_TOP}V{HEIGHT - _BOTTOM}"/>',
    ]
    legend = "".join(
        f'<span class="k{number}">{escape(one.name)}<b></b></span>'
        for number, one in enumerate(drawn, start=1)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}'
        f'<span class="legend">{legend}<span class="at"></span></span></figcaption>'
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'data-plot="{escape(_data(drawn, x_scale, percent=percent))}">{"".join(body)}</svg>'
        "</figure>"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers between two bounds."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """Write a number in few characters: 12300 → "12.3k"."""
    size = abs(value)
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= factor:
            return f"{value / factor:.4g}{unit}"
    if size and size < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}"


def _bounds(low: float, high: float, *, from_zero: bool) -> tuple[float, float]:
    low = min(low, 0.0) if from_zero else low
    room = (high - low or abs(high) or 1.0) * 0.06
    return (low if from_zero else low - room), high + room


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the finite points, at most `_MAX_POINTS` of them and always the last."""
    finite = [point for point in points if math.isfinite(point[1])]
    stride = max(1, math.ceil(len(finite) / _MAX_POINTS))
    return [*finite[:-1:stride], *finite[-1:]]


def _horizontal_grid(scale: _Scale, *, percent: bool) -> Iterable[str]:
    for value in ticks(scale.low, scale.high):
        y = scale(value)
        text = f"{100 * value:.4g} %" if percent else short(value)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
        yield f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _step_axis(scale: _Scale) -> Iterable[str]:
    y = HEIGHT - _BOTTOM
    yield f'<path class="axis" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>'
    for value in ticks(scale.low, scale.high, 6):
        if value == int(value):
            yield (
                f'<text class="soft" x="{scale(value):.1f}" y="{y + 20}" text-anchor="middle">'
                f"{int(value):,}</text>"
            )


def _mark(mark: Mark, scale: _Scale) -> str:
    x = scale(mark.x)
    turned = x > WIDTH * 0.7
    return (
        f'<path class="mark" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="marked" x="{x + (-4 if turned else 4):.1f}" y="{_TOP + 10}" '
        f'text-anchor="{"end" if turned else "start"}">{escape(mark.text)}</text>'
    )


def _line(number: int, series: Series, x_scale: _Scale, y_scale: _Scale) -> str:
    places = [(x_scale(x), y_scale(y)) for x, y in series.points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = ""
    if series.dotted or len(places) == 1:
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>' for x, y in places)
    return f'<g class="c{number}"><path class="line" d="M{path}"/>{dots}</g>'


def _data(series: Sequence[Series], scale: _Scale, *, percent: bool) -> str:
    """Return what the page's script shows under the pointer."""
    return json.dumps(
        {
            "left": scale.start,
            "right": scale.end,
            "high": scale.high,
            "percent": percent,
            "series": [[[x, float(f"{y:.5g}")] for x, y in one.points] for one in series],
        },
        separators=(",", ":"),
    )
