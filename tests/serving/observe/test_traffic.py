"""What `kovar top` makes of metrics: samples, quantiles, and the difference of two readings."""

from __future__ import annotations

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kovar.cli.top import traffic_table
from kovar.serving.observe.exposition import quantile, read_samples
from kovar.serving.observe.traffic import Reading, traffic_between

PAGE = """\
# HELP ray_kovar_requests_total requests by how they ended
# TYPE ray_kovar_requests_total counter
ray_kovar_version_info{application="a",model="m",version="3",digest="abcdef0123456789",runtime="torch",precision="fp32",replica="r1"} 1.0
ray_kovar_requests_total{application="a",model="m",version="3",route="/v1/predict",outcome="answered",replica="r1"} %(answered)s
ray_kovar_requests_total{application="a",model="m",version="3",route="/v1/predict",outcome="queue_full",replica="r1"} 4.0
ray_kovar_request_seconds_bucket{application="a",model="m",version="3",le="0.1",replica="r1"} %(answered)s
ray_kovar_request_seconds_bucket{application="a",model="m",version="3",le="+Inf",replica="r1"} %(answered)s
ray_kovar_texts_total{application="a",model="m",version="3",replica="r1"} 60
ray_kovar_tokens_total{application="a",model="m",version="3",replica="r1"} 30
ray_kovar_padded_tokens_total{application="a",model="m",version="3",replica="r1"} 40
ray_kovar_queued_texts{application="a",model="m",version="3",replica="r1"} 7
ray_kovar_running_requests{application="a",replica="r1"} 2
"""  # noqa: E501


def reading(at, answered):
    return Reading(at, read_samples(PAGE % {"answered": answered}, prefix="ray_kovar_"))


def test_samples_are_read_with_their_labels():
    text = '# c\nx_total{a="1",b="q\\"\\\\\\n,}"} 2.5e3 1700\ny NaN\nz{} +Inf\nbroken{ 1\n'
    samples = list(read_samples(text))
    assert samples[0].name == "x_total"
    assert dict(samples[0].labels) == {"a": "1", "b": 'q"\\\n,}'}
    assert samples[0].value == 2500
    assert (math.isnan(samples[1].value), math.isinf(samples[2].value)) == (True, True)
    assert len(samples) == 3


def test_a_version_tells_what_it_did_between_two_readings():
    (application,) = traffic_between(reading(0.0, 10), reading(5.0, 110))
    (version,) = application.versions
    assert (version.num_answered, version.num_refused, version.num_failed) == (100, 0, 0)
    assert (version.digest, version.runtime, version.num_replicas) == (
        "abcdef0123456789",
        "torch fp32",
        1,
    )
    assert version.p99_s == pytest.approx(0.099)
    assert (application.queued_texts, application.running_requests) == (7, 2)
    assert application.padding is None  # nothing ran meanwhile


def test_without_an_earlier_reading_everything_counts_from_the_start():
    (application,) = traffic_between(None, reading(5.0, 110))
    assert application.versions[0].num_answered == 110
    assert application.versions[0].num_refused == 4
    assert application.padding == pytest.approx(0.25)


def test_tokens_padding_and_queue_are_told_apart_by_version():
    info = 'ray_kovar_version_info{application="a",model="n",version="1",replica="r1"} 1'
    of = '{application="a",model="n",version="1",replica="r1"}'
    more = f"ray_kovar_tokens_total{of} 10\nray_kovar_padded_tokens_total{of} 20\n"
    page = f"{PAGE % {'answered': 5}}{info}\n{more}ray_kovar_queued_texts{of} 2\n"
    (application,) = traffic_between(None, Reading(0.0, read_samples(page)))
    m, n = application.versions
    assert (m.num_tokens, m.padding, m.queued_texts) == (30, pytest.approx(0.25), 7)
    assert (n.num_tokens, n.padding, n.queued_texts) == (10, pytest.approx(0.5), 2)
    assert (application.num_tokens, application.queued_texts) == (40, 9)
    assert application.padding == pytest.approx(1 / 3)


def test_a_replica_that_started_anew_counts_from_zero():
    (application,) = traffic_between(reading(0.0, 110), reading(5.0, 10))
    assert application.versions[0].num_answered == 10


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_table_fits_the_terminal_and_names_silent_nodes(width):
    found = traffic_between(reading(0.0, 10), reading(5.0, 110))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(traffic_table(found, ["http://10.0.0.1/metrics"], width=width, seconds=5.0))
    shown = console.export_text()
    for part in ("m 3", "20.0", "99 ms", "7", "1 of the nodes"):
        assert part in shown
    assert "…" not in shown
    assert ("abcdef012345" in shown) == (width >= 120)


@given(
    ends=st.lists(st.floats(0.001, 100), min_size=1, max_size=10, unique=True),
    counts=st.lists(st.integers(0, 100), min_size=11, max_size=11),
    share=st.floats(0.01, 1.0),
)
def test_a_quantile_lies_within_the_buckets_and_grows_with_its_share(ends, counts, share):
    total, buckets = 0, []
    for end, count in zip([*sorted(ends), math.inf], counts, strict=False):
        total += count
        buckets.append((end, float(total)))
    value = quantile(share, buckets)
    assert (value is None) == (total == 0)
    if value is not None:
        assert 0 <= value <= max(ends)
        assert value <= quantile(1.0, buckets)


def test_a_quantile_is_that_of_prometheus():
    buckets = [(0.1, 50.0), (0.2, 90.0), (math.inf, 100.0)]
    assert quantile(0.5, buckets) == pytest.approx(0.1)
    assert quantile(0.7, buckets) == pytest.approx(0.15)
    assert quantile(0.99, buckets) == pytest.approx(0.2)
    assert quantile(0.5, []) is None


def test_json_of_the_facts_is_plain():
    from dataclasses import asdict

    found = traffic_between(None, reading(5.0, 110))
    assert json.loads(json.dumps([asdict(one) for one in found]))[0]["versions"][0]["model"] == "m"
