"""What rows are made of: one table, one row and one small file for each layout."""

from __future__ import annotations

from typing import Final

from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout, LayoutName, SplitName
from kovar.data.layouts.text_label import TextLabel

LAYOUTS: Final[dict[LayoutName, Layout]] = {
    "text-label": TextLabel(),
}

__all__ = [
    "LAYOUTS",
    "Content",
    "EncodedRows",
    "Encoding",
    "Layout",
    "LayoutName",
    "SplitName",
    "TextLabel",
]
