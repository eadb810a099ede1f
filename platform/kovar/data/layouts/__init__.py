"""What rows are made of: one table, one row and one small file for each layout."""

from __future__ import annotations

from typing import Final

from kovar.data.layouts.causal_text import CausalText
from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout, LayoutName, SplitName
from kovar.data.layouts.masked_text import MaskedText
from kovar.data.layouts.text_label import TextLabel

LAYOUTS: Final[dict[LayoutName, Layout]] = {
    "text-label": TextLabel(),
    "masked-text": MaskedText(),
    "causal-text": CausalText(),
}

__all__ = [
    "LAYOUTS",
    "CausalText",
    "Content",
    "EncodedRows",
    "Encoding",
    "Layout",
    "LayoutName",
    "MaskedText",
    "SplitName",
    "TextLabel",
]
