"""Places between 0 and 1, and the values of dimensions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kovar.tuning.dimension import Dimension
from kovar.tuning.search.scale import all_values, extremes, unit_of, value_at

CASES: list[dict[str, Any]] = [
    {"kind": "grid", "values": [1, True, "a", None]},
    {"kind": "uniform", "low": 0.0, "high": 1.0},
    {"kind": "uniform", "low": 0.1, "high": 0.75, "step": 0.1},
    {"kind": "loguniform", "low": 1e-6, "high": 1e-2},
    {"kind": "loguniform", "low": 1e-5, "high": 1e-3, "step": 1e-5},
    {"kind": "integer", "low": -3, "high": 9},
    {"kind": "integer", "low": 16, "high": 512, "step": 16},
    {"kind": "integer", "low": 1, "high": 512, "log": True},
]


def dimension(fields: dict[str, Any]) -> Dimension:
    adapter: TypeAdapter[Dimension] = TypeAdapter(Dimension)
    return adapter.validate_python(
        {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    )


@pytest.mark.parametrize("fields", CASES, ids=str)
@given(unit=st.floats(0, 1))
def test_a_value_leads_back_to_its_place(fields, unit):
    varied = dimension(fields)
    value = value_at(varied, unit)
    place = unit_of(varied, value)
    assert place is not None
    assert value_at(varied, place) == pytest.approx(value)


@pytest.mark.parametrize("fields", CASES[1:], ids=str)
def test_the_ends_of_a_range_are_reached_and_nothing_beyond(fields):
    varied = dimension(fields)
    low, high = extremes(varied)
    assert low == fields["low"]
    assert fields["high"] - fields.get("step", 1e-12) < high <= fields["high"]
    assert unit_of(varied, fields["high"] * 2) is None
    assert unit_of(varied, "text") is None


def test_every_step_of_a_range_is_as_likely_as_another():
    varied = dimension({"kind": "integer", "low": 2, "high": 8, "step": 2})
    drawn = [value_at(varied, n / 1000) for n in range(1000)]
    assert [drawn.count(value) for value in (2, 4, 6, 8)] == [250] * 4
    assert all_values(varied) == [2, 4, 6, 8]


def test_small_numbers_of_a_logarithmic_range_are_likelier():
    varied = dimension({"kind": "integer", "low": 1, "high": 100, "log": True})
    drawn = [value_at(varied, n / 1000) for n in range(1000)]
    assert 450 < sum(value <= 10 for value in drawn) < 650


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "grid", "values": [1, 1]},
        {"kind": "uniform", "low": 0.0, "high": 1.0, "step": 2.0},
        {"kind": "integer", "low": 0, "high": 8, "log": True},
        {"kind": "loguniform", "low": 0.0, "high": 1.0},
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        dimension(fields)
