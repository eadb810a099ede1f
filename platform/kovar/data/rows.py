"""How rows are named in messages."""

from __future__ import annotations

from typing import Final

NUM_ROWS_SHOWN: Final = 5


def show_rows(rows: list[int]) -> str:
    """Name the first few rows: `row 7`, or `rows 3, 4, 9, 10, 12, …` (counted from 1)."""
    shown = ", ".join(f"{row:,}" for row in rows[:NUM_ROWS_SHOWN])
    more = ", …" if len(rows) > NUM_ROWS_SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
