"""What rows are made of: one table, one row and one small file for each layout."""

from __future__ import annotations

from typing import Final

from kovar.data.layouts.causal_text import CausalText
from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout, LayoutName, SplitName
from kovar.data.layouts.masked_text import MaskedText
from kovar.data.layouts.tagged_words import NO_TAG, NUM_WORDS, WORD_TAGS, TaggedWords
from kovar.data.layouts.text import SECOND, segments
from kovar.data.layouts.text_label import TextLabel
from kovar.data.layouts.text_labels import TextLabels

LAYOUTS: Final[dict[LayoutName, Layout]] = {
    "text-label": TextLabel(),
    "text-labels": TextLabels(),
    "tagged-words": TaggedWords(),
    "masked-text": MaskedText(),
    "causal-text": CausalText(),
}

__all__ = [
    "LAYOUTS",
    "NO_TAG",
    "NUM_WORDS",
    "SECOND",
    "WORD_TAGS",
    "CausalText",
    "Content",
    "EncodedRows",
    "Encoding",
    "Layout",
    "LayoutName",
    "MaskedText",
    "SplitName",
    "TaggedWords",
    "TextLabel",
    "TextLabels",
    "segments",
]
