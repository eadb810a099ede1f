"""The words of a text, and a tag for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kovar.data.columns import Column, find_column, is_list, is_text, type_name
from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout
from kovar.data.rows import show_rows
from kovar.data.spec import DataSpec
from kovar.errors import DataError

NO_TAG: Final = -100
"""Stored for tokens that have no tag of their own; losses of torch ignore it."""
WORD_TAGS: Final = "word_tags"
"""Stored: the index of each token's tag, or `NO_TAG`, a list of int32."""
NUM_WORDS: Final = "num_words"
"""Stored: how many words of a row have a tag, int32."""

_TAG: Final = re.compile(r"O|[BI]-.+")


class TaggedWords(Layout):
    """Columns `tokens` and `tags`; stored are a tag for each token, and how many words have one.

    A word's tag stands at its first token: its other tokens, and those that the tokenizer adds,
    have none. Words are what the file calls tokens; the tokenizer's tokens are their pieces.
    """

    name = "tagged-words"
    settings = frozenset({"tokens", "tags"})
    min_labels = 2
    label_field = "data.tags"
    labels_in_both = False

    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns of the words and of the tags."""
        kinds = (list, str)
        return (
            Column(spec.tokens, "data.tokens", "list of words", kinds, "lists of words"),
            Column(spec.tags, "data.tags", "list of tags", kinds, "lists of tags", is_class=True),
        )

    def tokenized(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the column of the words."""
        return (spec.tokens,)

    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Return lists of words and of tags, as many tags as words in every row."""
        words, tags = (
            _lists(find_column(table, column.name, field=column.field), column)
            for column in self.columns(spec)
        )
        _refuse(
            [len(a) != len(b) for a, b in zip(words, tags, strict=True)],
            "the row has not as many tags as words",
            field="data.tags",
        )
        found = {tag for row in tags for tag in row}
        strange = sorted(tag for tag in found if not _TAG.fullmatch(tag))
        if strange:
            raise DataError(
                "not a tag of an entity",
                field="data.tags",
                got=", ".join(strange[:5]),
                allowed="O, B-TYPE and I-TYPE",
                hint="write the first word of an entity as B-TYPE and its others as I-TYPE",
            )
        lists = pa.list_(pa.string())
        content = pa.table({"tokens": pa.array(words, lists), "tags": pa.array(tags, lists)})
        return Content(content, tuple(sorted(found)))

    def label_counts(self, table: pa.Table) -> Counter[str]:
        """Count words by tag."""
        return Counter(pc.list_flatten(table.column("tags")).to_pylist())

    def keys(self, table: pa.Table) -> Iterable[str]:
        """Return the words of each row, with spaces between them."""
        return (" ".join(words) for words in table.column("tokens").to_pylist())

    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return the tag of each token, and the number of words."""
        return pa.field(WORD_TAGS, pa.list_(pa.int32())), pa.field(NUM_WORDS, pa.int32())

    def texts(self, spec: DataSpec) -> tuple[str, ...]:
        """Return words and tags: those that are cut off have no token."""
        return ("tokens", "tags")

    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize the words and give each word's tag to its first token."""
        index_of = {tag: index for index, tag in enumerate(encoding.labels)}
        words = table.column("tokens").to_pylist()
        encoded = encoding.tokenizer.encode_batch(words, is_pretokenized=True)
        tags = [
            _aligned(one, [index_of[tag] for tag in row])
            for one, row in zip(encoded, table.column("tags").to_pylist(), strict=True)
        ]
        counts = [int((row != NO_TAG).sum()) for row in tags]
        return EncodedRows(
            [np.array(one.ids, dtype=np.int32) for one in encoded],
            {
                WORD_TAGS: pa.array(tags, pa.list_(pa.int32())),
                NUM_WORDS: pa.array(counts, pa.int32()),
            },
            num_truncated=sum(bool(one.overflowing) for one in encoded),
        )


def _aligned(encoded: Any, tags: list[int]) -> NDArray[np.int32]:
    """Return the tag of each token: of a word's first token, the word's."""
    words = np.array([-1 if word is None else word for word in encoded.word_ids])
    first = (words >= 0) & (words != np.concatenate([[-1], words[:-1]]))
    found: NDArray[np.int32] = np.where(first, np.array(tags)[words], NO_TAG).astype(np.int32)
    return found


def _lists(found: pa.ChunkedArray, column: Column) -> list[list[str]]:
    """Return each row's words or tags; a text is divided at white space.

    Raises:
        DataError: a row has none, or the column holds something else.
    """
    kind = found.type
    inner = kind.value_type if is_list(kind) else kind
    if not is_text(inner):
        raise DataError(
            f"the column holds {type_name(inner)} (in rows 1, 2, 3, …), not {column.allowed}",
            field=column.field,
            got=f"{column.name}: {kind}",
            allowed=f"{column.allowed}, or text with spaces between them",
        )
    rows = [row.split() if isinstance(row, str) else row for row in found.to_pylist()]
    _refuse([not row for row in rows], f"no {column.what}", field=column.field)
    _refuse(
        [any(one is None or not one.strip() for one in row) for row in rows],
        f"a {column.what} with a gap in it",
        field=column.field,
    )
    return rows


def _refuse(is_wrong: list[bool], what: str, *, field: str) -> None:
    wrong = [number for number, one in enumerate(is_wrong, 1) if one]
    if wrong:
        raise DataError(
            f"{show_rows(wrong)}: {what}",
            field=field,
            got=f"{len(wrong):,} of {len(is_wrong):,} rows",
            allowed="a tag for every word, and at least one word in a row",
        )
