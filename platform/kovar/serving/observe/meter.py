"""Counts requests and batches, and hands the sums to Ray from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from kovar.serving.exchange import Exchange
from kovar.serving.observe.metrics import BY_NAME

if TYPE_CHECKING:
    from kovar.inference.runner import BatchRecord

logger = logging.getLogger(__name__)

FLUSH_EVERY_S: Final = 2.0
MAX_WAITING: Final = 100_000

Labels = tuple[tuple[str, str], ...]
Sums = defaultdict[tuple[str, Labels], float]
Reading = tuple[str, Mapping[str, str], float]
"""Name of a gauge, its labels and its value."""


class Sink(Protocol):
    """What takes the numbers; `RaySink` in a replica."""

    def add(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Increase a counter."""
        ...

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Put a value into a histogram."""
        ...

    def set(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge."""
        ...


@dataclass(frozen=True, slots=True)
class _Ended:
    """What is counted of a request; the exchange itself holds texts and is let go."""

    version: Labels
    route: str
    outcome: str
    key_id: str | None
    seconds: float
    num_texts: int
    stages: tuple[tuple[str, float], ...]


class Meter:
    """Notes requests and batches in a microsecond, and gives them to a sink every two seconds.

    Args:
        sink: where the numbers go.
        gauges: gives the values that are read rather than counted, at every flush.
        counts: gives sums that others count, at every flush.
        flush_every_s: seconds between two flushes; None leaves flushing to the caller.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        gauges: Callable[[], list[Reading]] = list,
        counts: Callable[[], list[Reading]] = list,
        flush_every_s: float | None = FLUSH_EVERY_S,
    ) -> None:
        self._sink = sink
        self._gauges = gauges
        self._counts = counts
        self._counted: dict[tuple[str, Labels], float] = {}
        self._ended: deque[_Ended] = deque(maxlen=MAX_WAITING)
        self._batches: deque[BatchRecord] = deque(maxlen=MAX_WAITING)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if flush_every_s is not None:
            self._thread = threading.Thread(
                target=self._work, args=(flush_every_s,), name="kovar-meter", daemon=True
            )
            self._thread.start()

    def request(self, exchange: Exchange, seconds: float) -> None:
        """Note a request that has ended."""
        timing = exchange.timing
        stages: tuple[tuple[str, float], ...] = ()
        if timing is not None:
            stages = (
                ("tokenize", timing.tokenize_s),
                ("queue", timing.queue_s),
                ("compute", timing.compute_s),
            )
        self._ended.append(
            _Ended(
                version=(("model", exchange.model), ("version", exchange.version)),
                route=exchange.route or "none",
                outcome=exchange.outcome,
                key_id=exchange.key_id,
                seconds=seconds,
                num_texts=exchange.num_texts if exchange.code is None else 0,
                stages=stages,
            )
        )

    def batch(self, record: BatchRecord) -> None:
        """Note a batch that ran; `on_batch` of a runner."""
        self._batches.append(record)

    def flush(self) -> None:
        """Give everything that was noted to the sink."""
        sums: Sums = defaultdict(float)
        while self._ended:
            self._count_request(self._ended.popleft(), sums)
        while self._batches:
            self._count_batch(self._batches.popleft(), sums)
        for (name, labels), value in sums.items():
            self._sink.add(name, dict(labels), value)
        for name, labelled, value in self._counts():
            of = (name, tuple(labelled.items()))
            self._sink.add(name, labelled, value - self._counted.get(of, 0.0))
            self._counted[of] = value
        for name, labelled, value in self._gauges():
            self._sink.set(name, labelled, value)

    def close(self) -> None:
        """Give the last numbers to the sink and end the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self.flush()

    def _count_request(self, ended: _Ended, sums: Sums) -> None:
        route = (*ended.version, ("route", ended.route))
        sums["kovar_requests", (*route, ("outcome", ended.outcome))] += 1
        if ended.num_texts:
            sums["kovar_texts", ended.version] += ended.num_texts
        if ended.key_id:
            of_key = (("key", ended.key_id), ("outcome", ended.outcome))
            sums["kovar_key_requests", of_key] += 1
        self._sink.observe("kovar_request_seconds", dict(route), ended.seconds)
        for stage, seconds in ended.stages:
            labels = {**dict(ended.version), "stage": stage}
            self._sink.observe("kovar_stage_seconds", labels, seconds)

    def _count_batch(self, record: BatchRecord, sums: Sums) -> None:
        model, version = record.owner
        labels = (("model", model), ("version", version))
        sums["kovar_tokens", labels] += record.num_tokens
        sums["kovar_padded_tokens", labels] += record.num_padded
        self._sink.observe("kovar_batch_rows", dict(labels), record.num_rows)
        self._sink.observe("kovar_batch_tokens", dict(labels), record.num_tokens)
        self._sink.observe("kovar_batch_seconds", dict(labels), record.seconds)

    def _work(self, flush_every_s: float) -> None:
        while not self._closed.wait(flush_every_s):
            self._flush_or_say()
        self._flush_or_say()

    def _flush_or_say(self) -> None:
        try:
            self.flush()
        except Exception as problem:
            # Metrics that cannot be given away are no reason to stop answering.
            logger.error("metrics were not recorded: %s", type(problem).__name__)


class RaySink:
    """Ray Serve's metrics; Ray's agent on each node shows them to Prometheus.

    Made in a replica's constructor, where Serve knows which replica's labels to add.
    """

    def __init__(self) -> None:
        from ray.serve import metrics

        kinds: dict[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._instruments: dict[str, Any] = {
            metric.name: (
                metrics.Histogram(
                    metric.name,
                    metric.description,
                    boundaries=list(metric.boundaries),
                    tag_keys=metric.labels,
                )
                if metric.kind == "histogram"
                else kinds[metric.kind](metric.name, metric.description, tag_keys=metric.labels)
            )
            for metric in BY_NAME.values()
        }

    def add(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Increase a counter."""
        if value > 0:
            self._instruments[name].inc(value, tags=dict(labels))

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Put a value into a histogram."""
        # Ray refuses zero in a histogram's bucket search on some versions, and nothing takes 0 s.
        self._instruments[name].observe(max(value, 1e-9), tags=dict(labels))

    def set(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge."""
        self._instruments[name].set(value, tags=dict(labels))
