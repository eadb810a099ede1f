"""Charts: round ticks, finite points, well-formed SVG."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.training.history.chart import Mark, Series, line_chart, short, ticks

FINITE = st.floats(-1e12, 1e12)


@given(low=FINITE, size=st.floats(1e-9, 1e12), count=st.integers(2, 10))
def test_ticks_lie_within_the_bounds_and_are_about_as_many_as_asked_for(low, size, count):
    size = max(size, abs(low) * 1e-6)  # smaller differences are lost in floating point
    found = ticks(low, low + size, count)
    assert len(found) <= count + 2
    assert all(low - size * 1e-6 <= tick <= low + size * (1 + 1e-6) for tick in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (1.025, "1.025"), (12300, "12.3k"), (5e-5, "5e-5"), (-2e6, "-2M")],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=True)), max_size=40),
    st.booleans(),
)
def test_any_points_give_a_well_formed_chart_or_none(points, from_zero):
    points = [(x, y) for x, y in points if not math.isfinite(y) or abs(y) < 1e100]
    drawn = line_chart("<&>", [Series("a<b", points)], marks=[Mark(3, "x")], from_zero=from_zero)
    finite = [y for _, y in points if math.isfinite(y)]
    assert bool(drawn) == bool(finite)
    if drawn:
        ElementTree.fromstring(drawn)  # noqa: S314
        assert not re.search(r"\b(nan|inf)\b", drawn)


def test_equal_values_are_drawn_in_the_middle():
    (y,) = re.findall(r'cy="([\d.]+)"', line_chart("t", [Series("s", [(5, 1.0)])]))
    assert 60 < float(y) < 180
