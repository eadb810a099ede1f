"""One JSON line for each request: when, who, how long, how much, how it ended; never its texts."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Final

from kovar.serving.exchange import Exchange
from kovar.serving.observe.json_lines import JsonLines

FILES: Final = "access-*.jsonl*"


class AccessLog:
    """Writes exchanges as JSON lines.

    Args:
        lines: where they go.
    """

    def __init__(self, lines: JsonLines) -> None:
        self._lines = lines

    def write(self, exchange: Exchange, *, seconds: float, input_digest: str | None = None) -> None:
        """Write one request that has ended."""
        self._lines.write(_record(exchange, seconds, input_digest))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def _record(exchange: Exchange, seconds: float, input_digest: str | None) -> dict[str, Any]:
    timing = exchange.timing
    record: dict[str, Any] = {
        "time": _stamp(),
        "kind": "request",
        "request_id": exchange.request_id,
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "key": exchange.key_id,
        "model": exchange.model,
        "version": exchange.version,
        "digest": exchange.digest,
        "num_texts": exchange.num_texts,
        "num_tokens": exchange.num_tokens,
        "received_bytes": exchange.received_bytes,
        "sent_bytes": exchange.sent_bytes,
        "input_digest": input_digest,
        "total_ms": _ms(seconds),
    }
    if timing is not None:
        record |= {
            "tokenize_ms": _ms(timing.tokenize_s),
            "queue_ms": _ms(timing.queue_s),
            "compute_ms": _ms(timing.compute_s),
        }
    return record


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


class LogLines(logging.Handler):
    """Writes Kovar's own log messages of a replica beside its requests, as JSON lines.

    No message of Kovar's quotes a text: exceptions are named by kind and place.
    """

    def __init__(self, lines: JsonLines) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        self._lines.write(
            {
                "time": _stamp(),
                "kind": "log",
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
            }
        )
