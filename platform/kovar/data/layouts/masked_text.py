"""One text a row, of which a model is to guess hidden tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa

from kovar.data.columns import Column, text_column
from kovar.data.conversation import Dialect
from kovar.data.language import TARGET
from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout, as_lists
from kovar.data.spec import DataSpec
from kovar.errors import ModelError

MASKS: Final = ("[MASK]", "<mask>")


class MaskedText(Layout):
    """Column `text`; stored is which tokens may be hidden: all but special ones."""

    name = "masked-text"
    settings = frozenset({"text"})

    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the column of the texts."""
        return (Column(spec.text, "data.text", "text", (str,)),)

    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Return the texts."""
        (text,) = self.columns(spec)
        return Content(pa.table({"text": text_column(table, text)}))

    def keys(self, table: pa.Table) -> Iterable[str]:
        """Return the texts."""
        texts: list[str] = table.column("text").to_pylist()
        return texts

    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return the roles of the tokens."""
        return (pa.field("roles", pa.list_(pa.uint8())),)

    def constants(self, encoding: Encoding) -> dict[str, int]:
        """Return the token that hides others, and how many tokens there are to guess from.

        Raises:
            ModelError: the tokenizer has no token that hides others.
        """
        tokenizer = encoding.tokenizer
        named = Dialect.read(encoding.tokenizer_dir, tokenizer=tokenizer).special.get("mask_token")
        for token in (named, *MASKS):
            number = tokenizer.token_to_id(token) if token else None
            if number is not None:
                return {"mask_id": number, "vocabulary": tokenizer.get_vocab_size()}
        raise ModelError(
            "the tokenizer has no token that hides others",
            file=encoding.tokenizer_dir,
            allowed=f"mask_token in tokenizer_config.json, or {' or '.join(MASKS)}",
            hint="choose a model that was trained with masked tokens, or task: causal-lm",
        )

    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize the texts; for training, what does not fit into a row fills further rows."""
        found = encoding.tokenizer.encode_batch_fast(table.column("text").to_pylist())
        pieces = [
            (index, piece)
            for index, one in enumerate(found)
            for piece in (one, *(one.overflowing if encoding.split == "train" else ()))
        ]
        roles = [
            np.where(np.array(piece.special_tokens_mask, dtype=bool), 0, TARGET).astype(np.uint8)
            for _, piece in pieces
        ]
        return EncodedRows(
            [np.array(piece.ids, dtype=np.int32) for _, piece in pieces],
            {"roles": as_lists(roles, pa.uint8())},
            num_truncated=sum(bool(one.overflowing) for one in found)
            if encoding.split == "evaluation"
            else 0,
            origin=np.array([index for index, _ in pieces], dtype=np.int64),
        )
