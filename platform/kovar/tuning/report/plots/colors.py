"""The colors of a sweep's plots, the same on the page and in the PNGs."""

from __future__ import annotations

from typing import Final

CATEGORIES: Final = (
    "#2563be", "#c2410c", "#0f8a5f", "#8b3fc4", "#b7791f", "#0891b2", "#db2777", "#4d7c0f",
)  # fmt: skip
"""Told apart on white and on black, and by most who see fewer colors."""

QUIET: Final = "#94a3b8"
STRONG: Final = "#dc2626"

OUTCOMES: Final[dict[str, str]] = {
    "finished": "#2563be", "stopped": "#94a3b8", "diverged": "#b7791f", "failed": "#dc2626",
    "interrupted": "#f59e0b", "lost": "#7f1d1d", "unfinished": "#8b3fc4",
    "excluded": "#cbd5e1",
}  # fmt: skip
"""Outcome of a stay on a node, or status of a trial → color."""

_VIRIDIS: Final = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip


def viridis(share: float) -> str:
    """Return the color at a place between 0 and 1 of the scale that plotly calls Viridis."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    index = min(int(place), len(_VIRIDIS) - 2)
    low, high, part = _VIRIDIS[index], _VIRIDIS[index + 1], place - index
    mixed = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{one:02x}" for one in mixed)


def category(index: int) -> str:
    """Return the color of a category; they repeat after the last."""
    return CATEGORIES[index % len(CATEGORIES)]
