"""A trace of the traffic that an endpoint really had, from the access logs of its replicas."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kovar.errors import SpecError
from kovar.serving.autoscaling.trace import COLUMNS, DEFAULT_TOKENS

_ASKED: Final = ("/predict", "/embeddings", "/infer", ":ModelInfer")


@dataclass
class _Second:
    num_requests: int = 0
    num_known: int = 0
    num_tokens: int = 0


@dataclass(frozen=True)
class Recording:
    """What access logs tell of the traffic.

    Args:
        begin: first second, since 1970.
        end: last second.
        num_requests: requests for predictions and embeddings, refused ones included.
        rows: (second, requests, mean tokens of one); a row of none where a pause begins,
            and at the end.
    """

    begin: int
    end: int
    num_requests: int
    rows: list[tuple[int, int, float]]

    def write(self, path: Path) -> None:
        """Write it as a trace; see `read_trace`."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows((at, number, f"{tokens:.1f}") for at, number, tokens in self.rows)


def read_recording(logs: Sequence[Path]) -> Recording:
    """Read access logs, those of all replicas of one application together.

    A request counts from the moment it came, and a refused one with the mean length of all.

    Raises:
        SpecError: a file cannot be read or is no access log, or there are no requests.
    """
    seconds: dict[int, _Second] = {}
    for path in logs:
        for line in _requests(path):
            came = datetime.fromisoformat(line["time"]).timestamp() - line["total_ms"] / 1000
            second = seconds.setdefault(int(came), _Second())
            second.num_requests += 1
            if line["num_tokens"]:
                second.num_known += 1
                second.num_tokens += line["num_tokens"]
    if not seconds:
        raise SpecError(
            "no requests for predictions in the logs",
            file=logs[0] if logs else None,
            allowed="access-*.jsonl of the application's replicas",
        )
    known = sum(one.num_known for one in seconds.values())
    mean = sum(one.num_tokens for one in seconds.values()) / known if known else DEFAULT_TOKENS
    rows: list[tuple[int, int, float]] = []
    for at, one in sorted(seconds.items()):
        if rows and at > rows[-1][0] + 1:
            rows.append((rows[-1][0] + 1, 0, mean))
        tokens = one.num_tokens + mean * (one.num_requests - one.num_known)
        rows.append((at, one.num_requests, tokens / one.num_requests))
    rows.append((rows[-1][0] + 1, 0, mean))
    total = sum(one.num_requests for one in seconds.values())
    return Recording(rows[0][0], rows[-2][0], total, rows)


def _requests(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the requests to models; a last line that is being written may be cut."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise SpecError(f"cannot read the log: {problem}", file=path) from None
    for number, text in enumerate(lines, start=1):
        if not text:
            continue
        try:
            line = json.loads(text)
            if line["kind"] == "request" and str(line["route"]).endswith(_ASKED):
                datetime.fromisoformat(line["time"])
                yield line | {"total_ms": float(line["total_ms"])}
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise SpecError(
                    "not a line of an access log",
                    file=path,
                    line=number,
                    allowed="access-*.jsonl, written by a replica",
                ) from None
