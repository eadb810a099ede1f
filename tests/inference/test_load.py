from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.inference.load import LoadMeter


def test_nothing_is_known_before_the_first_text():
    load = LoadMeter().read(0.0, queued_tokens=0)
    assert load.arriving_tokens_per_s == 0
    assert load.tokens_per_s is load.light_s is load.tokens_per_text is None


def test_arrivals_count_for_ten_seconds_and_then_not_at_all():
    meter = LoadMeter()
    meter.arrived(100.0, num_texts=2, num_tokens=50)
    assert meter.read(101.0, queued_tokens=0).arriving_tokens_per_s == 5.0
    assert meter.read(109.9, queued_tokens=0).arriving_tokens_per_s == 5.0
    assert meter.read(111.0, queued_tokens=0).arriving_tokens_per_s == 0.0


def test_refused_texts_count_as_load_with_the_mean_length():
    meter = LoadMeter()
    meter.arrived(0.0, num_texts=2, num_tokens=50)
    meter.refused(0.5, num_texts=4)
    assert meter.read(1.0, queued_tokens=7).arriving_tokens_per_s == 15.0


def test_batches_at_a_time_share_what_waits_and_none_of_them_is_faster():
    alone, beside = LoadMeter(), LoadMeter(num_parallel=2)
    for meter in (alone, beside):
        meter.arrived(0.0, num_texts=1, num_tokens=20)
        for tokens in [20, 40] * 10:
            meter.served(num_tokens=tokens, seconds=0.01 + tokens * 1e-3)
    one, both = (meter.read(0.0, queued_tokens=0) for meter in (alone, beside))
    assert both.light_s == one.light_s
    assert both.tokens_per_s == pytest.approx(2 * one.tokens_per_s)
    assert beside.wait_s(num_tokens=10) == pytest.approx(alone.wait_s(num_tokens=10) / 2)


@given(st.floats(1e-4, 1e-2), st.floats(1e-6, 1e-3))
def test_the_speed_of_full_batches_is_known_from_small_ones(fixed, each):
    meter = LoadMeter()
    meter.arrived(0.0, num_texts=1, num_tokens=20)
    for tokens in [20, 40, 30, 60] * 10:
        meter.served(num_tokens=tokens, seconds=fixed + tokens * each)
    load = meter.read(0.0, queued_tokens=0)
    assert load.tokens_per_s == pytest.approx(1 / each, rel=1e-3)
    assert load.light_s == pytest.approx(fixed + 20 * each, rel=1e-3)


def test_batches_of_one_size_make_the_runtime_look_slower_never_faster():
    meter = LoadMeter()
    for _ in range(10):
        meter.served(num_tokens=20, seconds=0.004 + 20 * 1e-4)
    assert meter.read(0.0, queued_tokens=0).tokens_per_s == pytest.approx(20 / 0.006)
