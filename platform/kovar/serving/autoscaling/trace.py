"""A day's traffic, from a CSV file: how many tokens arrive in each second."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kovar.errors import SpecError

COLUMNS: Final = ("time", "requests", "tokens")
MAX_SECONDS: Final = 35 * 86_400
DEFAULT_TOKENS: Final = 32.0
LARGEST: Final = 1e12
"""Of a number in a trace: sums of larger ones leave what floats hold."""


@dataclass(frozen=True)
class Trace:
    """Traffic in slices of one second.

    Args:
        requests: requests that arrive in each second.
        tokens: tokens that arrive in each second.
    """

    requests: list[float]
    tokens: list[float]

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return len(self.requests)

    @property
    def tokens_per_request(self) -> float:
        """Mean length of a request."""
        return sum(self.tokens) / max(1.0, sum(self.requests))


def read_trace(path: Path) -> Trace:
    """Read traffic from a CSV file with a header.

    `time` is in seconds or as ISO 8601 and never goes back. Without a column `requests` each row
    is one request; with it, so many arrive from this row's time until the next row's, evenly.
    `tokens` is the mean length of a row's requests, 32 where it is absent.

    Raises:
        SpecError: a row is wrong; it names the line and the column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(path, file))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise SpecError(f"cannot read the trace: {problem}", file=path) from None
    if not rows:
        raise SpecError("the trace has no rows", file=path, allowed="a header and rows")
    seconds = math.ceil(rows[-1].time - rows[0].time) + 1
    if seconds > MAX_SECONDS:
        raise SpecError("the trace is too long", file=path, got=f"{seconds} s", allowed="35 days")
    return _spread(rows, seconds)


@dataclass(frozen=True, slots=True)
class _Row:
    time: float
    requests: float | None
    tokens: float


def _rows(path: Path, lines: Iterator[str]) -> Iterator[_Row]:
    reader = csv.DictReader(lines)
    names = reader.fieldnames or []
    if "time" not in names or set(names) - set(COLUMNS):
        raise SpecError(
            "the trace has other columns",
            file=path,
            line=1,
            got=", ".join(names) or "nothing",
            allowed="time, and optionally requests and tokens",
        )
    before = -math.inf
    for row in reader:
        line = reader.line_num
        time = _time(path, line, row["time"])
        if time < before:
            raise SpecError("time goes back", file=path, line=line, field="time", got=row["time"])
        before = time
        requests = _number(path, line, "requests", row["requests"]) if "requests" in names else None
        given = row.get("tokens")
        tokens = _number(path, line, "tokens", given) if given else DEFAULT_TOKENS
        yield _Row(time, requests, tokens)


def _time(path: Path, line: int, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        try:
            value = datetime.fromisoformat(text or "").timestamp()
        except ValueError:
            value = math.nan
    if not abs(value) <= LARGEST:
        raise SpecError(
            "not a time", file=path, line=line, field="time", got=text, allowed="seconds, ISO 8601"
        )
    return value


def _number(path: Path, line: int, field: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= LARGEST:
        raise SpecError(
            "not a number",
            file=path,
            line=line,
            field=field,
            got=text,
            allowed=f"a number from 0 to {LARGEST:g}",
        )
    return value


def _spread(rows: list[_Row], seconds: int) -> Trace:
    requests, tokens = [0.0] * seconds, [0.0] * seconds
    begin = rows[0].time
    typical = (rows[-1].time - begin) / max(1, len(rows) - 1)
    for index, row in enumerate(rows):
        if row.requests is None:
            second = int(row.time - begin)
            requests[second] += 1.0
            tokens[second] += row.tokens
            continue
        following = rows[index + 1].time if index + 1 < len(rows) else row.time + typical
        # The last row has no end of its own: it lasts as long as the others do on average.
        first = int(row.time - begin)
        last = max(first + 1, math.ceil(following - begin))
        while len(requests) < last:
            requests.append(0.0)
            tokens.append(0.0)
        each = row.requests / (last - first)
        for second in range(first, last):
            requests[second] += each
            tokens[second] += each * row.tokens
    return Trace(requests, tokens)
