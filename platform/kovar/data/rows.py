"""How rows are named in messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

NUM_ROWS_SHOWN: Final = 5
_ROWS_BEFORE: Final[ContextVar[int]] = ContextVar("_ROWS_BEFORE", default=0)


@contextmanager
def rows_after(number: int) -> Iterator[None]:
    """Name rows by their place in the whole data set while a piece of it is looked at.

    Args:
        number: rows before the piece.
    """
    token = _ROWS_BEFORE.set(number)
    try:
        yield
    finally:
        _ROWS_BEFORE.reset(token)


def show_rows(rows: list[int]) -> str:
    """Name the first few rows: `row 7`, or `rows 3, 4, 9, 10, 12, …` (counted from 1)."""
    before = _ROWS_BEFORE.get()
    shown = ", ".join(f"{row + before:,}" for row in rows[:NUM_ROWS_SHOWN])
    more = ", …" if len(rows) > NUM_ROWS_SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
