"""Importance of fields: found where it is there, and not claimed where it is not."""

from dataclasses import replace

import numpy as np
import pytest

from kovar.tuning.report.importance import importance_of
from swept import FACTS, RATE, report, trial

PATHS = (RATE, "precision", "training.warmup")


def swept(quality, num=48):
    """Return configurations of a random search, their quality being a function of the point."""
    generator = np.random.default_rng(0)
    trials = []
    for number in range(1, num + 1):
        point = {
            RATE: float(10 ** generator.uniform(-6, -3)),
            "precision": ["fp32", "bf16"][generator.integers(2)],
            "training.warmup": float(generator.uniform(0, 0.2)),
        }
        trials.append(trial(number, quality(point, generator), point=point))
    return report(*trials, facts=replace(FACTS, paths=PATHS))


def found_in(swept_report):
    return importance_of(swept_report.configurations, swept_report.facts)


def test_the_field_that_matters_comes_first_and_the_others_count_for_little():
    found = found_in(swept(lambda point, _: 0.8 - 0.1 * abs(np.log10(point[RATE]) + 4)))
    assert found.fields[0].path == RATE
    assert found.fields[0].share > 0.5
    assert all(field.share < 0.1 for field in found.fields[1:])
    assert found.explained > 0.8


def test_a_category_can_matter():
    found = found_in(swept(lambda point, _: 0.9 if point["precision"] == "fp32" else 0.6))
    assert (found.fields[0].path, found.fields[0].share) == ("precision", pytest.approx(1, abs=0.2))


def test_noise_is_called_unreliable():
    found = found_in(swept(lambda _, generator: float(generator.uniform(0.7, 0.8))))
    assert found.explained < 0.3
    assert "not to be relied on" in found.caution


def test_few_configurations_have_no_importance_and_the_reason_is_told():
    found = found_in(swept(lambda point, _: point[RATE], num=7))
    assert found.fields == ()
    assert found.caution == "7 configurations with a result are too few; 8 are needed"


def test_equal_results_have_no_importance():
    assert "same accuracy" in found_in(swept(lambda *_: 0.5)).caution


def test_a_conditional_field_that_is_absent_is_a_value_of_its_own():
    trials = [
        trial(n, 0.9 if n % 2 else 0.5, point={"a": n % 2, **({"b": n} if n % 2 else {})})
        for n in range(1, 25)
    ]
    facts = replace(FACTS, paths=("a", "b"))
    found = importance_of(report(*trials, facts=facts).configurations, facts)
    assert found.explained > 0.9


def test_importance_is_the_same_each_time():
    sweep = swept(lambda point, _: point["training.warmup"])
    assert found_in(sweep) == found_in(sweep)
