"""Every metric of a replica: its name, kind and labels. Dashboards and alerts are checked on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
)  # fmt: skip
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
TOKENS: Final = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
VERSION: Final = ("model", "version")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is declared.

    Attributes:
        name: without Ray's prefix and Prometheus' suffixes; see `exposed`.
        kind: what Prometheus takes it for.
        description: one line, with the unit.
        labels: beside those that Serve adds: application, deployment, replica.
        boundaries: upper ends of a histogram's buckets.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = VERSION
    boundaries: tuple[float, ...] = ()

    @property
    def exposed(self) -> tuple[str, ...]:
        """Names of its series as Prometheus scrapes them from Ray."""
        name = f"ray_{self.name}"
        if self.kind == "counter":
            return (f"{name}_total",)
        if self.kind == "histogram":
            return (f"{name}_bucket", f"{name}_sum", f"{name}_count")
        return (name,)


METRICS: Final = (
    Metric(
        "kovar_requests", "counter", "requests by how they ended", (*VERSION, "route", "outcome")
    ),
    Metric(
        "kovar_request_seconds",
        "histogram",
        "seconds from a request's arrival at the replica to its end",
        (*VERSION, "route"),
        SECONDS,
    ),
    Metric(
        "kovar_stage_seconds",
        "histogram",
        "seconds of the parts of an answer: tokenize, queue, compute",
        (*VERSION, "stage"),
        SECONDS,
    ),
    Metric("kovar_texts", "counter", "texts answered"),
    Metric("kovar_key_requests", "counter", "requests of each API key", ("key", "outcome")),
    Metric("kovar_batch_rows", "histogram", "texts in a batch", boundaries=ROWS),
    Metric(
        "kovar_batch_tokens", "histogram", "tokens in a batch, without padding", boundaries=TOKENS
    ),
    Metric("kovar_batch_seconds", "histogram", "seconds that a batch ran", boundaries=SECONDS),
    Metric("kovar_tokens", "counter", "tokens that the runtime read, without padding"),
    Metric("kovar_padded_tokens", "counter", "tokens that the runtime read, with padding"),
    Metric("kovar_queued_texts", "gauge", "texts that wait at the replica"),
    Metric("kovar_queued_tokens", "gauge", "tokens that wait at the replica"),
    Metric("kovar_running_requests", "gauge", "requests that the replica has not answered yet", ()),
    Metric(
        "kovar_version_info",
        "gauge",
        "1 for each version that the replica serves",
        (*VERSION, "digest", "runtime", "precision"),
    ),
    Metric("kovar_golden_check", "gauge", "1 when the golden examples were reproduced"),
    Metric(
        "kovar_runtime_left_out",
        "gauge",
        "1 for each runtime that failed at the replica's start and is replaced by another",
        (*VERSION, "runtime"),
    ),
    Metric("kovar_adapter_loaded", "gauge", "1 for each adapter in memory, 0 for the others"),
    Metric("kovar_adapter_loads", "counter", "adapters that were loaded, or failed", ("outcome",)),
    Metric("kovar_adapter_evictions", "counter", "adapters that made room for others", ()),
    Metric("kovar_adapter_loading_seconds", "counter", "seconds that loading adapters took", ()),
    Metric("kovar_tokens_per_s", "gauge", "tokens that full batches would answer in a second", ()),
    Metric("kovar_light_batch_s", "gauge", "seconds of a batch of one text", ()),
    Metric("kovar_may_sleep", "gauge", "1 where the application may have no replica", ()),
    Metric("kovar_cold_start_seconds", "gauge", "seconds of a stage of the start", ("stage",)),
    Metric("kovar_lost_records", "counter", "log lines and samples that were not kept", ("what",)),
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
EXPOSED: Final = frozenset(name for metric in METRICS for name in metric.exposed)
