"""The paired comparison with the best, the front, and the rule that recommends."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.tuning.report import analyze
from kovar.tuning.report.front import front
from swept import FACTS, answered, first, report, trial

POINTS = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 2), max_size=12)


@given(POINTS)
def test_the_front_is_what_no_point_dominates(points):
    chosen = {points[i] for i in front(points)}

    def dominated(one):
        return any(o != one and o[0] <= one[0] and o[1] >= one[1] for o in points)

    assert chosen == {one for one in points if not dominated(one)}
    assert len(front(points)) == len(chosen)


def test_a_cheaper_configuration_that_is_as_good_is_recommended(tmp_path):
    trials = [answered(tmp_path, 1, first(320), hours=4.0), answered(tmp_path, 2, first(319))]
    found = analyze(report(*trials), tmp_path).recommendation
    assert (found.configuration, found.trial, found.price) == (2, 2, "cost")
    assert found.rule.startswith("the cheapest configuration whose quality is not significantly")
    assert "it takes 25% of the best one's cost" in found.reason


def test_a_cheaper_configuration_that_is_worse_is_not(tmp_path):
    trials = [answered(tmp_path, 1, first(320), hours=4.0), answered(tmp_path, 2, first(300))]
    found = analyze(report(*trials), tmp_path)
    assert found.recommendation.configuration == 1
    assert [rival.is_worse for rival in found.rivals] == [True]
    assert found.rivals[0].gap == pytest.approx(0.05)
    assert found.rivals[0].lower < 0.05 < found.rivals[0].upper


def test_answers_to_other_rows_are_not_paired(tmp_path):
    trials = [answered(tmp_path, n, first(320 - n), point={"data.split_seed": n // 3})
              for n in (1, 2, 3)]  # fmt: skip
    found = analyze(report(*trials), tmp_path)
    assert [rival.configuration for rival in found.rivals] == [2]
    assert "1 were not compared row by row" in found.recommendation.reason


def test_pairing_finds_a_small_difference_that_unpaired_rows_would_hide(tmp_path):
    """Equal gaps: 8 rows more are right, or 8 rows more after 80 others moved."""
    moved = np.roll(first(312), 44)
    trials = [answered(tmp_path, 1, first(320)), answered(tmp_path, 2, first(312)),
              answered(tmp_path, 3, moved)]  # fmt: skip
    verdicts = {r.configuration: r.is_worse for r in analyze(report(*trials), tmp_path).rivals}
    assert verdicts == {2: True, 3: False}


def test_seeds_that_differ_widely_are_no_evidence(tmp_path):
    apart = [answered(tmp_path, n, first(c), configuration=1) for n, c in ((1, 390), (2, 290))]
    steady = [answered(tmp_path, n, first(c), configuration=2, hours=0.5)
              for n, c in ((3, 331), (4, 329))]  # fmt: skip
    found = analyze(report(*apart, *steady), tmp_path)
    assert not found.rivals[0].is_worse
    assert found.recommendation.configuration == 2


def test_time_decides_where_no_price_is_declared(tmp_path):
    trials = [answered(tmp_path, 1, first(320), price=None, hours=2.0),
              answered(tmp_path, 2, first(320), price=None)]  # fmt: skip
    found = analyze(report(*trials), tmp_path).recommendation
    assert (found.configuration, found.price) == (2, "time")
    assert "the fastest configuration" in found.rule


def test_the_sweeps_objective_says_what_is_paid(tmp_path):
    trials = [answered(tmp_path, 1, first(320), price=1.0, hours=2.0),
              answered(tmp_path, 2, first(320), price=9.0)]  # fmt: skip
    cheap = analyze(report(*trials), tmp_path).recommendation
    facts = replace(FACTS, objectives=("accuracy", "wall_seconds"))
    fast = analyze(report(*trials, facts=facts), tmp_path).recommendation
    assert (cheap.configuration, fast.configuration) == (1, 2)


def test_a_configuration_that_lost_a_seed_is_not_recommended(tmp_path):
    trials = [answered(tmp_path, 1, first(320), configuration=1, hours=4.0),
              answered(tmp_path, 2, first(320), configuration=2),
              trial(3, configuration=2, status="diverged")]  # fmt: skip
    assert analyze(report(*trials), tmp_path).recommendation.configuration == 1


def test_without_answers_the_best_is_recommended_and_the_rule_says_why(tmp_path):
    trials = [trial(1, 0.9, wall_seconds=9.0), trial(2, 0.89, wall_seconds=1.0)]
    found = analyze(report(*trials), tmp_path).recommendation
    assert found.configuration == 1
    assert "answers to compare row by row are missing" in found.rule


def test_answers_on_other_rows_are_not_compared(tmp_path):
    trials = [answered(tmp_path, 1, first(320)), answered(tmp_path, 2, first(310)),
              answered(tmp_path, 3, first(300)[:-7])]  # fmt: skip
    found = analyze(report(*trials), tmp_path)
    assert [rival.configuration for rival in found.rivals] == [2]
    assert "1 were not compared row by row" in found.recommendation.reason


def test_a_sweep_without_a_result_recommends_nothing(tmp_path):
    found = analyze(report(trial(1), trial(2)), tmp_path)
    assert (found.recommendation, found.fronts, found.rivals) == (None, (), ())


def test_a_single_configuration_is_its_own_recommendation(tmp_path):
    found = analyze(report(answered(tmp_path, 1, first(320))), tmp_path).recommendation
    assert found.configuration == 1
    assert "compared" not in found.reason
