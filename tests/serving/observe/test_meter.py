"""What is counted of requests and batches, under which labels."""

from __future__ import annotations

from collections import defaultdict

from kovar.inference import Timing
from kovar.inference.runner import BatchRecord
from kovar.serving.exchange import Exchange
from kovar.serving.observe import Meter
from kovar.serving.observe.metrics import BY_NAME, METRICS


class ListSink:
    """Keeps what a meter gives it, and refuses what is not declared."""

    def __init__(self) -> None:
        self.sums = defaultdict(float)
        self.values = defaultdict(list)
        self.gauges = {}

    def add(self, name, labels, value):
        self.sums[self._key(name, labels, "counter")] += value

    def observe(self, name, labels, value):
        self.values[self._key(name, labels, "histogram")].append(value)

    def set(self, name, labels, value):
        self.gauges[self._key(name, labels, "gauge")] = value

    def _key(self, name, labels, kind):
        metric = BY_NAME[name]
        assert (metric.kind, tuple(sorted(labels))) == (kind, tuple(sorted(metric.labels)))
        return name, *(labels[label] for label in metric.labels)


def test_requests_are_counted_by_version_route_and_outcome():
    sink = ListSink()
    meter = Meter(sink, flush_every_s=None)
    for code in (None, None, "queue_full"):
        exchange = Exchange(model="m", version="3", route="/v1/predict", code=code, num_texts=2)
        meter.request(exchange, 0.25)
    meter.close()
    assert sink.sums["kovar_requests", "m", "3", "/v1/predict", "answered"] == 2
    assert sink.sums["kovar_requests", "m", "3", "/v1/predict", "queue_full"] == 1
    assert sink.sums["kovar_texts", "m", "3"] == 4
    assert sink.values["kovar_request_seconds", "m", "3", "/v1/predict"] == [0.25] * 3


def test_the_parts_of_an_answer_are_observed():
    sink = ListSink()
    meter = Meter(sink, flush_every_s=None)
    meter.request(Exchange(model="m", version="3", timing=Timing(0.1, 0.2, 0.3)), 1.0)
    meter.flush()
    parts = {key[-1]: values for key, values in sink.values.items() if "stage" in key[0]}
    assert parts == {"tokenize": [0.1], "queue": [0.2], "compute": [0.3]}


def test_a_key_is_counted_by_its_public_id():
    sink = ListSink()
    meter = Meter(sink, flush_every_s=None)
    meter.request(Exchange(key_id="ab", code="key_rate"), 0.0)
    meter.flush()
    assert sink.sums["kovar_key_requests", "ab", "key_rate"] == 1
    assert sink.sums["kovar_requests", "", "", "none", "key_rate"] == 1


def test_batches_tell_their_tokens_with_and_without_padding():
    sink = ListSink()
    meter = Meter(sink, flush_every_s=None)
    for _ in range(2):
        meter.batch(BatchRecord(4, num_tokens=30, num_padded=40, seconds=0.5, owner=("m", "2")))
    meter.batch(BatchRecord(1, num_tokens=5, num_padded=5, seconds=0.1, owner=("m", "3")))
    meter.flush()
    assert (sink.sums["kovar_tokens", "m", "2"], sink.sums["kovar_tokens", "m", "3"]) == (60, 5)
    assert sink.sums["kovar_padded_tokens", "m", "2"] == 80
    assert sink.values["kovar_batch_rows", "m", "2"] == [4, 4]


def test_gauges_are_read_and_sums_of_others_are_followed_at_every_flush():
    sink, lost = ListSink(), [2.0]
    meter = Meter(
        sink,
        gauges=lambda: [("kovar_running_requests", {}, 7)],
        counts=lambda: [("kovar_lost_records", {"what": "line"}, lost[0])],
        flush_every_s=None,
    )
    meter.flush()
    lost[0] = 5.0
    meter.flush()
    assert sink.gauges == {("kovar_running_requests",): 7}
    assert sink.sums["kovar_lost_records", "line"] == 5


def test_a_sink_that_fails_stops_nothing(caplog):
    class Broken(ListSink):
        def set(self, name, labels, value):
            raise OSError("full")

    meter = Meter(Broken(), gauges=lambda: [("kovar_running_requests", {}, 1)], flush_every_s=60)
    meter.close()
    assert "metrics were not recorded: OSError" in caplog.text


def test_every_metric_has_a_unit_or_counts_and_one_name():
    assert len(BY_NAME) == len(METRICS)
    assert all(metric.boundaries or metric.kind != "histogram" for metric in METRICS)
