"""What a model is to learn to write: texts, answers to prompts, or its part of conversations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kovar.data.columns import Column, find_column, is_text, refuse_gaps, text_column
from kovar.data.conversation import Dialect, Rendered, parse_messages
from kovar.data.language import START, TARGET, pack
from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout, as_lists
from kovar.data.rows import show_rows
from kovar.data.spec import DataSpec
from kovar.errors import DataError

Form = Literal["text", "prompt", "messages"]
"""What a row is: a text, a prompt with its completion, or a conversation."""

FORMS: Final[tuple[Form, ...]] = ("text", "prompt", "messages")

Row = tuple[NDArray[np.int32], NDArray[np.uint8]]


class CausalText(Layout):
    """Column `text`: a text, or in JSON a conversation or a prompt with its completion.

    Stored is which tokens are learned, and where documents begin.
    """

    name = "causal-text"
    settings = frozenset({"text", "messages", "prompt", "completion", "packing"})

    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns that the specification names."""
        if spec.messages is not None:
            return (Column(spec.messages, "data.messages", "conversation", (list, str)),)
        if spec.prompt is not None and spec.completion is not None:
            return (
                Column(spec.prompt, "data.prompt", "prompt", (str,)),
                Column(spec.completion, "data.completion", "completion", (str,)),
            )
        return (Column(spec.text, "data.text", "text", (str,)),)

    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Return the texts, prompts and conversations in JSON."""
        columns = self.columns(spec)
        if spec.messages is not None:
            return Content(pa.table({"text": _conversations(table, columns[0])}))
        found = [text_column(table, column) for column in columns]
        if len(found) == 1:
            return Content(pa.table({"text": found[0]}))
        pairs = zip(*(column.to_pylist() for column in found), strict=True)
        texts = [
            _json({"prompt": prompt, "completion": completion}) for prompt, completion in pairs
        ]
        return Content(pa.table({"text": pa.array(texts, pa.string())}))

    def tokenized(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the names of the columns that the specification names."""
        return tuple(column.name for column in self.columns(spec))

    def identity(self, spec: DataSpec, tokenizer_dir: Path | None = None) -> dict[str, Any]:
        """Return what a row is, whether texts are packed, and how the model writes texts.

        Raises:
            ModelError: rows are conversations, and the model has no chat template.
        """
        known = {"layout": self.name, "form": form(spec), "packing": spec.packing}
        if tokenizer_dir is None:
            return known
        dialect = Dialect.read(tokenizer_dir)
        parts = [dialect.begin, dialect.end]
        if spec.messages is not None:
            parts += [dialect.check_template(), *sorted(map(str, dialect.special.items()))]
        return known | {"dialect": hashlib.sha256("\0".join(parts).encode()).hexdigest()}

    def keys(self, table: pa.Table) -> Iterable[str]:
        """Return the texts."""
        texts: list[str] = table.column("text").to_pylist()
        return texts

    def written(self, table: pa.Table, spec: DataSpec) -> Iterable[str]:
        """Yield texts, prompts and completions, or messages."""
        kind = form(spec)
        for text in self.keys(table):
            match kind:
                case "messages":
                    yield from (str(one.get("content", "")) for one in parse_messages(text))
                case "prompt":
                    yield from json.loads(text).values()
                case _:
                    yield text

    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return the roles of the tokens."""
        return (pa.field("roles", pa.list_(pa.uint8())),)

    def constants(self, encoding: Encoding) -> dict[str, int]:
        """Return the place of the rows' form in `FORMS`."""
        return {"form": FORMS.index(form(encoding.spec))}

    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize rows; training texts are packed into windows, unless `packing` is off.

        Rows in which nothing that is learned fits are left out.
        """
        dialect = Dialect.read(encoding.tokenizer_dir, tokenizer=encoding.tokenizer)
        texts = table.column("text").to_pylist()
        kind = form(encoding.spec)
        if kind == "text" and encoding.split == "train" and encoding.spec.packing:
            documents = [row for row, _ in _rows(texts, kind, dialect, encoding, whole=True)]
            windows = pack(documents, encoding.spec.max_length)
            return _stored([(ids, roles) for ids, roles, _ in windows], [w[2] for w in windows])
        rows = _rows(texts, kind, dialect, encoding)
        kept = [
            index for index, ((_, roles), _) in enumerate(rows) if ((roles & TARGET) != 0)[1:].any()
        ]
        stored = _stored([rows[index][0] for index in kept], kept)
        num_truncated = sum(was_cut for _, was_cut in rows)
        return EncodedRows(stored.tokens, stored.targets, num_truncated, stored.origin)


def form(spec: DataSpec) -> Form:
    """Return what a row is."""
    if spec.messages is not None:
        return "messages"
    return "text" if spec.prompt is None else "prompt"


def render(text: str, kind: Form, dialect: Dialect) -> Rendered:
    """Write one row as the model reads it.

    Args:
        text: as `CausalText.read` returns it.
        kind: what it is.
        dialect: of the model.
    """
    match kind:
        case "messages":
            return dialect.conversation(parse_messages(text))
        case "prompt":
            pair = json.loads(text)
            return dialect.completion(pair["prompt"], pair["completion"])
        case _:
            return dialect.document(text)


def _rows(
    texts: list[str], kind: Form, dialect: Dialect, encoding: Encoding, *, whole: bool = False
) -> list[tuple[Row, bool]]:
    """Return tokens and roles of each text, cut to the longest row unless it is wanted whole."""
    rendered = [render(text, kind, dialect) for text in texts]
    found = encoding.tokenizer.encode_batch(
        [one.text for one in rendered], add_special_tokens=False
    )
    rows: list[tuple[Row, bool]] = []
    for written, one in zip(rendered, found, strict=True):
        parts = (one, *one.overflowing) if whole else (one,)
        ids = np.array([number for part in parts for number in part.ids], dtype=np.int32)
        offsets = np.array([pair for part in parts for pair in part.offsets], dtype=np.int64)
        roles = _roles(offsets.reshape(-1, 2), written.spans)
        rows.append(((ids, roles), bool(one.overflowing)))
    return rows


def _roles(offsets: NDArray[np.int64], spans: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    """Return TARGET for tokens that reach into a span, and START for the first."""
    roles = np.zeros(len(offsets), dtype=np.uint8)
    for start, end in spans:
        roles[(offsets[:, 0] < end) & (offsets[:, 1] > start)] |= TARGET
    roles[:1] |= START
    return roles


def _stored(rows: list[Row], origin: list[int]) -> EncodedRows:
    roles = as_lists([roles for _, roles in rows], pa.uint8())
    return EncodedRows(
        [ids for ids, _ in rows], {"roles": roles}, origin=np.array(origin, dtype=np.int64)
    )


def _conversations(table: pa.Table, column: Column) -> pa.Array:
    """Return conversations as JSON; they come as lists of objects, or as JSON already."""
    found = find_column(table, column.name, field=column.field)
    refuse_gaps(found, column)
    texts, wrong = [], []
    for number, value in enumerate(found.to_pylist(), 1):
        try:
            texts.append(_json(parse_messages(value if is_text(found.type) else _json(value))))
        except (ValueError, TypeError) as problem:
            wrong.append((number, str(problem)))
    if wrong:
        raise DataError(
            f"{len(wrong):,} of {len(found):,} rows are no conversation ({wrong[0][1]}): "
            f"{show_rows([number for number, _ in wrong])}",
            field=column.field,
            got=f"{column.name}: {found.type}",
            allowed='a list of messages, such as {"role": "user", "content": "Hello"}, in which '
            "the assistant answers",
            hint=f"set {column.field} to the column that holds the conversations",
        )
    return pa.array(texts, pa.string())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
