"""OpenTelemetry: what a request's span says, and how Serve's spans reach a collector.

Serve makes the spans itself once `tracing_config` in its configuration file switches them on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import MissingExtraError
from kovar.serving.exchange import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

STAGES: Final = (("tokenize", "tokenize_s"), ("queue", "queue_s"), ("compute", "compute_s"))


def otlp_exporter() -> list[SpanProcessor]:
    """Send spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names.

    `exporter_import_path: kovar.serving.observe.tracing:otlp_exporter` under `tracing_config`.

    Raises:
        MissingExtraError: OpenTelemetry's exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtraError.of("otlp", needed_for="sending traces") from None
    return [BatchSpanProcessor(OTLPSpanExporter())]


def annotate_span(exchange: Exchange) -> None:
    """Describe a request that has ended in Serve's span of it, if there is one that is recorded.

    The parts of the answer become spans within it, at the times at which they were.
    """
    from opentelemetry import trace

    span = trace.get_current_span()
    if not span.is_recording():
        return
    for name, value in _attributes(exchange).items():
        span.set_attribute(name, value)
    if exchange.timing is None:
        return
    tracer = trace.get_tracer("kovar")
    # The parts stand before the request's end: what follows the last one is the answer's encoding.
    seconds = [getattr(exchange.timing, field) for _, field in STAGES]
    start = time.time() - sum(seconds)
    for (name, _), length in zip(STAGES, seconds, strict=True):
        part = tracer.start_span(f"kovar.{name}", start_time=round(start * 1e9))
        start += length
        part.end(round(start * 1e9))


def _attributes(exchange: Exchange) -> dict[str, Any]:
    return {
        "kovar.request_id": exchange.request_id,
        "kovar.model": exchange.model,
        "kovar.version": exchange.version,
        "kovar.digest": exchange.digest,
        "kovar.outcome": exchange.outcome,
        "kovar.num_texts": exchange.num_texts,
        "kovar.num_tokens": exchange.num_tokens,
        "http.route": exchange.route or "none",
        "http.response.status_code": exchange.status,
    }
