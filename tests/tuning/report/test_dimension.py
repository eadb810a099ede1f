"""What configurations differ in, and the cells that heat maps put their values in."""

from dataclasses import replace

import pytest

from kovar.tuning.report import facts_of
from kovar.tuning.report.dimension import ABSENT, dimensions_of, shown
from kovar.tuning.report.plots.cells import NUM_RANGES, Cells
from swept import FACTS, RATE, report, trial
from tiny_sweep import sweep_spec


def dimension(values, path="training.x", logarithmic=False):
    """Return the dimension that configurations with these values have; None is absent."""
    points = [{} if value is None else {path: value} for value in values]
    trials = [trial(n, 0.5, point=point) for n, point in enumerate(points, 1)]
    facts = replace(FACTS, paths=(path,), log_paths=frozenset({path} if logarithmic else ()))
    (found,) = dimensions_of(report(*trials, facts=facts).configurations, facts)
    return found


def test_a_field_with_one_value_is_no_dimension():
    found = report(trial(1, 0.5), trial(2, 0.6))
    assert [one.path for one in dimensions_of(found.configurations, found.facts)] == [RATE]


def test_categories_are_numbers_then_texts_then_what_is_absent():
    assert dimension([None, 16, "auto", 4, 8]).categories == ["4", "8", "16", "auto", ABSENT]


def test_a_resolved_precision_that_was_not_searched_is_a_dimension():
    trials = [trial(n, 0.5, point={}, precision=p) for n, p in ((1, "fp32"), (2, "bf16"))]
    facts = replace(FACTS, paths=(RATE,))
    found = dimensions_of(report(*trials, facts=facts).configurations, facts)
    assert [one.path for one in found] == ["precision"]


def test_few_values_have_a_cell_each():
    cells = Cells.of(dimension([1e-4, 1e-5, 1e-4]))
    assert (cells.labels, cells.places) == (("1e-5", "1e-4"), (1, 0, 1))


@pytest.mark.parametrize("logarithmic", [False, True])
def test_many_numbers_are_put_into_ranges(logarithmic):
    values = [10 ** (-5 + n / 10) for n in range(31)]
    cells = Cells.of(dimension(values, logarithmic=logarithmic))
    assert len(cells.labels) == NUM_RANGES
    assert list(cells.places) == sorted(cells.places)
    assert cells.places[-1] == NUM_RANGES - 1
    assert (cells.places.count(0) < 6) == logarithmic


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-5, "2e-5"), (6.105402e-5, "6.11e-5"), (0.1, "0.1"), (0.0, "0"), (True, "true"),
     (8192, "8192"), (1.5e10, "1.5e10"), (None, ABSENT), ({"kind": "lora"}, "kind: lora")],
)  # fmt: skip
def test_values_are_shown_shortly(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("search", "logarithmic"),
    [({"kind": "loguniform", "low": 1e-5, "high": 1e-4}, True),
     ({"kind": "grid", "values": [1e-5, 1e-3]}, True),
     ({"kind": "grid", "values": [0.0, 0.1]}, False),
     ({"kind": "grid", "values": ["fp32", "bf16"]}, False),
     ({"kind": "uniform", "low": 0.001, "high": 0.1}, False)],
)  # fmt: skip
def test_a_scale_is_logarithmic_where_the_spec_says_so_or_a_list_spans_far(search, logarithmic):
    assert facts_of(sweep_spec({RATE: search})).log_paths == ({RATE} if logarithmic else set())
