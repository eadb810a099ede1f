"""Data sets that are tokenized once, then memory-mapped by every worker, trial and epoch."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kovar.config import canonical_json
from kovar.data.cache import ensure_folder, read_meta
from kovar.data.files import MEMORY_BYTES
from kovar.data.layouts import LAYOUTS, EncodedRows, Encoding, Layout, LayoutName, SplitName
from kovar.data.progress import Progress, silent
from kovar.data.source import Source, load_table
from kovar.data.spec import DataSpec, EvaluationSource
from kovar.data.split import held_out
from kovar.data.tokenizer import TOKENIZER_FILE, load_tokenizer
from kovar.errors import DataError, ModelError

FORMAT: Final = 1
ROWS_PER_BATCH: Final = 65_536
TOKENS_PER_BATCH: Final = 1 << 24
"""A record batch ends at either: rows of thousands of tokens would fill the memory before."""

ROWS_PER_CALL: Final = 1_024

CONSTANTS: Final = b"kovar.constants"
"""Where the schema of a stored split keeps the layout's constants, as JSON."""

Call = tuple[pa.Table, NDArray[np.int64]]
"""Rows to tokenize, and their numbers in the source."""

OrderedMap = Callable[[Callable[[Call], "Tokenized"], Iterator[Call]], Iterable["Tokenized"]]
"""Applies a pure function to each call and yields the results in order, as `map` does."""


class Split:
    """One split, memory-mapped: a row is read when it is asked for.

    Beside the tokens it holds what the data set's layout stores of each row.

    Args:
        path: an Arrow IPC file of a tokenized data set.

    Attributes:
        lengths: number of tokens of each row, int32.
        constants: what the layout says of all rows, see `Layout.constants`.
    """

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        stored = (reader.schema.metadata or {}).get(CONSTANTS, b"{}")
        self.constants: dict[str, int] = json.loads(stored)
        self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._names: list[str] = reader.schema.names
        sizes = [batch.num_rows for batch in self._batches]
        self._starts: list[int] = np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()
        self._lists: dict[str, list[_Lists]] = {}
        self._columns: dict[str, NDArray[Any]] = {}
        offsets = [batch.column("input_ids").offsets.to_numpy() for batch in self._batches]
        self.lengths: NDArray[np.int32] = _joined(
            [np.diff(each).astype(np.int32) for each in offsets], np.int32
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def has(self, name: str) -> bool:
        """Return whether something of this name is stored of each row."""
        return name in self._names

    def input_ids(self, row: int) -> NDArray[np.int32]:
        """Return the tokens of one row, a view of the file."""
        return self.values("input_ids", row)

    def column(self, name: str) -> NDArray[Any]:
        """Return one stored number of every row, in the type that the layout stores."""
        if name not in self._columns:
            parts = [batch.column(name).to_numpy() for batch in self._batches]
            self._columns[name] = _joined(parts, np.int64)
        return self._columns[name]

    def values(self, name: str, row: int) -> NDArray[Any]:
        """Return the stored list of one row, a view of the file."""
        if name not in self._lists:
            self._lists[name] = [_Lists.of(batch.column(name)) for batch in self._batches]
        index = bisect_right(self._starts, row) - 1
        return self._lists[name][index].at(int(row) - self._starts[index])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Each row's number in the source."""
        return self.column("row")

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index of each row's label in the data set's `labels`, for rows of one label."""
        return self.column("label")

    @property
    def texts(self) -> list[str]:
        """The texts of all rows; kept for the evaluation split alone.

        Raises:
            ValueError: this is the training split.
        """
        texts: list[str] = self.kept("text")
        return texts

    def kept(self, name: str) -> list[Any]:
        """Return a column of the source as it is; kept for the evaluation split alone.

        Raises:
            ValueError: this is the training split, or the layout has no such column.
        """
        if name not in self._names:
            raise ValueError(f"the split keeps no {name}s; the training split keeps none at all")
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]


@dataclass(frozen=True, slots=True)
class _Lists:
    """Lists of numbers of one record batch: views of the file."""

    flat: NDArray[Any]
    offsets: NDArray[np.int32]

    @classmethod
    def of(cls, column: pa.ListArray) -> _Lists:
        return cls(column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy())

    def at(self, row: int) -> NDArray[Any]:
        found: NDArray[Any] = self.flat[self.offsets[row] : self.offsets[row + 1]]
        return found


def _joined(parts: list[Any], dtype: type[np.generic]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


@dataclass(frozen=True, slots=True)
class TokenizedDataset:
    """A tokenized data set on disk; small and picklable, so every worker opens it by itself.

    Args:
        folder: its cache folder, named by the fingerprint.
        fingerprint: SHA-256 of everything that decides its content.
        labels: the label names; a label's index is its class.
        num_train: rows of the training split.
        num_evaluation: rows of the evaluation split.
        facts: plain facts for a model card: source, split, tokens, labels.
        cached: whether `prepare_dataset` found it ready.
    """

    folder: Path
    fingerprint: str
    labels: tuple[str, ...]
    num_train: int
    num_evaluation: int
    facts: dict[str, Any]
    cached: bool = field(default=True, compare=False)

    @property
    def max_length(self) -> int:
        """The longest sequence in tokens that was asked for."""
        length: int = self.facts["max_length"]
        return length

    @classmethod
    def load(cls, folder: Path, *, cached: bool = True) -> TokenizedDataset:
        """Open a cache folder.

        Raises:
            ValueError: the folder is damaged; says why.
        """
        meta = read_meta(folder)
        if meta.get("format") != FORMAT:
            raise ValueError(f"format {meta.get('format')} instead of {FORMAT}")
        return cls(
            folder=folder,
            fingerprint=meta["fingerprint"],
            labels=tuple(meta["labels"]),
            num_train=meta["num_train"],
            num_evaluation=meta["num_evaluation"],
            facts=meta["facts"],
            cached=cached,
        )

    def open(self, split: SplitName) -> Split:
        """Memory-map one split."""
        return Split(self.folder / f"{split}.arrow")


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a source that form one split.

    Args:
        source: where they are.
        chosen: of each row of the source, whether it is one of them.
        num_rows: how many they are.
        label_counts: how often each label stands in them.
    """

    source: Source
    chosen: NDArray[np.bool_]
    num_rows: int
    label_counts: Counter[str]

    @classmethod
    def of(cls, source: Source, chosen: NDArray[np.bool_], layout: Layout) -> _Part:
        part = cls(source, chosen, int(chosen.sum()), Counter())
        for table, _ in part.tables():
            part.label_counts.update(layout.label_counts(table))
        return part

    def tables(self) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """Yield the rows in order, with their numbers in the source."""
        start = 0
        for table in self.source.rows:
            own = np.flatnonzero(self.chosen[start : start + table.num_rows])
            if len(own):
                yield table.take(pa.array(own)), own + start
            start += table.num_rows

    def calls(self) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """Yield the same, `ROWS_PER_CALL` rows at a time but for the last."""
        tables: list[pa.Table] = []
        numbers = [np.empty(0, np.int64)]
        for table, own in self.tables():
            tables.append(table)
            numbers.append(own)
            held, rows = pa.concat_tables(tables), np.concatenate(numbers)
            num_full = len(rows) - len(rows) % ROWS_PER_CALL
            for first in range(0, num_full, ROWS_PER_CALL):
                yield held.slice(first, ROWS_PER_CALL), rows[first : first + ROWS_PER_CALL]
            tables, numbers = [held.slice(num_full)], [rows[num_full:]]
        if len(numbers[0]):
            yield tables[0], numbers[0]


def prepare_dataset(
    spec: DataSpec,
    *,
    layout: LayoutName = "text-label",
    tokenizer_dir: Path,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
    memory_bytes: int = MEMORY_BYTES,
    ordered_map: OrderedMap = map,
) -> TokenizedDataset:
    """Read, validate, split and tokenize a data set, or find the result in the cache.

    Safe to call from several processes at once: one works, the others wait for it.

    Args:
        spec: the data block of a specification.
        layout: what the rows are made of.
        tokenizer_dir: folder with the `tokenizer.json` to use.
        cache_dir: the cache folder of the settings.
        base_dir: the folder of the specification.
        progress: told about downloads (bytes) and tokenizing (rows).
        memory_bytes: of a source of more than this, a piece at a time is in memory.
        ordered_map: does the tokenizing; the result is the same wherever that is.

    Raises:
        DataError: a mistake in the data, or a label that one of the splits lacks.
        ModelError: the tokenizer is missing or damaged.
        SettingsError: the cache cannot be written.
    """
    report = progress or silent
    kind = LAYOUTS[layout]
    tokenizer = load_tokenizer(tokenizer_dir)
    train, evaluation, split_facts = _split(spec, kind, cache_dir, base_dir, report, memory_bytes)
    labels = _check_labels(train, evaluation, spec, kind)
    identity = {
        "format": FORMAT,
        "train": train.source.content_digest,
        "evaluation": evaluation.source.content_digest,
        "labels": labels,
        "split": split_facts,
        "tokenizer": hashlib.sha256((tokenizer_dir / TOKENIZER_FILE).read_bytes()).hexdigest(),
        "max_length": spec.max_length,
        **kind.identity(spec, tokenizer_dir),
    }
    fingerprint = hashlib.sha256(canonical_json(identity)).hexdigest()

    def build(folder: Path) -> dict[str, Any]:
        tokenizer.enable_truncation(spec.max_length)
        parts: dict[SplitName, _Part] = {"train": train, "evaluation": evaluation}
        counts: dict[str, dict[str, Any]] = {}
        for name, part in parts.items():
            encoding = Encoding(spec, tokenizer, tokenizer_dir, labels, name)
            counts[name] = _write_split(folder, part, kind, encoding, report, ordered_map)
            if counts[name]["rows"] == 0:
                raise DataError(
                    f"no row of the {name} split has anything to learn in its first "
                    f"{spec.max_length} tokens",
                    field="data.max_length",
                    got=spec.max_length,
                    hint="raise data.max_length",
                )
        facts = {
            "split": split_facts,
            "max_length": spec.max_length,
            "tokenizer_sha256": identity["tokenizer"],
            **kind.identity(spec),
            **counts,
        }
        return {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "labels": labels,
            "num_train": counts["train"]["rows"],
            "num_evaluation": counts["evaluation"]["rows"],
            "facts": facts,
        }

    folder = cache_dir / "tokenized" / fingerprint
    cached = ensure_folder(folder, build=build, check=_check)
    dataset = TokenizedDataset.load(folder, cached=cached)
    # Where the rows came from belongs to this call: the same rows may lie under two names.
    origin = dict(train.source.description)
    if evaluation.source is not train.source:
        origin["evaluation_source"] = evaluation.source.description
    return replace(dataset, facts=origin | dataset.facts)


def _check(folder: Path) -> None:
    dataset = TokenizedDataset.load(folder)
    for split, num_rows in (("train", dataset.num_train), ("evaluation", dataset.num_evaluation)):
        # pa.ArrowInvalid is a ValueError: a file of the right size may still be garbage.
        if len(Split(folder / f"{split}.arrow")) != num_rows:
            raise ValueError(f"{split}.arrow has another number of rows")


def _split(
    spec: DataSpec,
    layout: Layout,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress,
    memory_bytes: int,
) -> tuple[_Part, _Part, dict[str, Any]]:
    load: Callable[..., Source] = load_table
    places = {
        "layout": layout.name,
        "cache_dir": cache_dir,
        "base_dir": base_dir,
        "progress": progress,
        "memory_bytes": memory_bytes,
    }
    source = load(spec, **places)
    if isinstance(spec.evaluation, EvaluationSource):
        other = spec.model_copy(update={"source": spec.evaluation.source})
        fewest = min(1, layout.min_labels)
        other_rows = load(other, **places, field="data.evaluation.source", min_labels=fewest)
        parts = [
            _Part.of(part, np.ones(part.num_rows, dtype=np.bool_), layout)
            for part in (source, other_rows)
        ]
        return parts[0], parts[1], {"evaluation": "source"}
    chosen = _held_out(source, spec.evaluation, layout, seed=spec.split_seed)
    train, evaluation = _Part.of(source, ~chosen, layout), _Part.of(source, chosen, layout)
    return train, evaluation, {"evaluation": evaluation.num_rows, "seed": spec.split_seed}


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """What a tokenizer may be trained on: held-out rows are not among it.

    Iterate for the texts, one or more of each training row, as often as needed. A thousand rows or
    so are strings at a time.

    Args:
        part: the training rows.
        layout: what they are made of.
        spec: the data block of the specification.
        digest: SHA-256 of what decides the texts.
    """

    part: _Part
    layout: Layout
    spec: DataSpec
    digest: str

    def __iter__(self) -> Iterator[str]:
        for table, _ in self.part.calls():
            yield from self.layout.written(table, self.spec)


def training_texts(
    spec: DataSpec,
    *,
    layout: LayoutName = "text-label",
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> TrainingTexts:
    """Find the texts of the training split.

    Args:
        spec: the data block of a specification.
        layout: what the rows are made of.
        cache_dir: the cache folder of the settings.
        base_dir: the folder of the specification.
        progress: told about downloads.
        memory_bytes: of a source of more than this, a piece at a time is in memory.

    Raises:
        DataError: a mistake in the data.
    """
    kind = LAYOUTS[layout]
    train, _, split = _split(spec, kind, cache_dir, base_dir, progress or silent, memory_bytes)
    identity = {"content": train.source.content_digest, "split": split, "layout": layout}
    digest = hashlib.sha256(canonical_json(identity)).hexdigest()
    return TrainingTexts(train, kind, spec, digest)


def held_out_rows(
    spec: DataSpec, source: Source, *, layout: LayoutName = "text-label"
) -> NDArray[np.int64]:
    """Return the rows that a fine-tuning run with this data block is evaluated on, ascending.

    Raises:
        DataError: they are not rows of the source, or no row would be left to train on.
    """
    if isinstance(spec.evaluation, EvaluationSource):
        raise DataError(
            "the held-out rows are another data set",
            field="data.evaluation",
            hint="name that one as the source, and evaluate all of its rows",
        )
    chosen = _held_out(source, spec.evaluation, LAYOUTS[layout], seed=spec.split_seed)
    return np.flatnonzero(chosen)


def _held_out(
    source: Source, asked: int | float, layout: Layout, *, seed: int
) -> NDArray[np.bool_]:
    """Say of each row of a source whether it is held out."""
    num_rows = source.num_rows
    num_evaluation = max(1, round(asked * num_rows)) if isinstance(asked, float) else asked
    if num_evaluation >= num_rows:
        raise DataError(
            "no row would be left to train on",
            field="data.evaluation",
            got=asked,
            allowed=f"at most {num_rows - 1:,}: the data set has {num_rows:,} rows",
        )
    keys = (key for table in source.rows for key in layout.keys(table))
    return held_out(keys, num_evaluation=num_evaluation, seed=seed)


def _check_labels(
    train: _Part, evaluation: _Part, spec: DataSpec, layout: Layout
) -> tuple[str, ...]:
    """Return the labels in order; the training split holds all, the evaluation split if it must."""
    known = train.source.labels
    in_train, in_evaluation = set(train.label_counts), set(evaluation.label_counts)
    from_source = isinstance(spec.evaluation, EvaluationSource)
    for missing, where in (
        (in_evaluation - in_train, "training"),
        (in_train - in_evaluation if layout.labels_in_both else set(), "evaluation"),
        (set(known) - in_train, "training"),
    ):
        if not missing:
            continue
        name = min(missing)
        raise DataError(
            f"the label {name!r} is missing in the {where} split",
            field="data.evaluation.source" if from_source else "data.evaluation",
            got=f"{len(missing)} of {len(set(known) | in_evaluation)} labels missing in it",
            allowed="every label in both splits"
            if layout.labels_in_both
            else "every label in the training split",
            hint="add rows with it, merge it with another label, or hold out "
            f"{'more' if where == 'evaluation' else 'fewer'} rows",
        )
    return known


def _write_split(
    folder: Path,
    part: _Part,
    layout: Layout,
    encoding: Encoding,
    progress: Progress,
    ordered_map: OrderedMap,
) -> dict[str, Any]:
    """Tokenize the rows of one split into `<split>.arrow`; return counts."""
    name = encoding.split
    keeps = layout.texts(encoding.spec) if name == "evaluation" else ()
    given = next(iter(part.source.rows)).schema
    schema = pa.schema(
        [
            pa.field("input_ids", pa.list_(pa.int32())),
            *layout.targets(encoding.spec),
            pa.field("row", pa.int64()),
            *(given.field(text) for text in keeps),
        ]
    )
    if constants := layout.constants(encoding):
        schema = schema.with_metadata({CONSTANTS: canonical_json(constants)})
    num_tokens = num_truncated = num_stored = num_read = 0
    progress(f"tokenizing {name}", 0, part.num_rows)
    batch = _Batch()
    with pa.ipc.new_file(str(folder / f"{name}.arrow"), schema) as writer:
        work = _Tokenizing(layout, encoding, schema)
        for done in ordered_map(work, part.calls()):
            num_read += done.num_rows
            num_truncated += done.num_truncated
            num_tokens += done.num_tokens
            num_stored += done.stored.num_rows
            batch.add(done)
            if batch.is_full or num_read == part.num_rows:
                batch.write(writer)
            progress(f"tokenizing {name}", num_read, part.num_rows)
    counts = part.label_counts
    return {
        "rows": num_stored,
        "tokens": num_tokens,
        "truncated": num_truncated,
        "labels": {label: counts[label] for label in encoding.labels},
    }


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A thousand rows or so, as they are stored.

    Args:
        stored: the rows.
        num_rows: rows of the source that they were made of.
        num_truncated: rows that lost their end.
    """

    stored: pa.RecordBatch
    num_rows: int
    num_truncated: int

    @property
    def num_tokens(self) -> int:
        """All tokens of the rows."""
        return len(self.stored.column("input_ids").values)


@dataclass(frozen=True, slots=True)
class _Tokenizing:
    """The work on a thousand rows or so: pure, and picklable, so it can be done anywhere."""

    layout: Layout
    encoding: Encoding
    schema: pa.Schema

    def __call__(self, call: Call) -> Tokenized:
        table, rows = call
        folder = self.encoding.tokenizer_dir
        if not folder.is_dir():  # on another machine, where its settings would silently be absent
            raise ModelError("the model's folder is not on every node", file=folder)
        encoded = self.layout.encode(table, self.encoding)
        stored = _stored(encoded, table, rows, self.schema)
        return Tokenized(stored, table.num_rows, encoded.num_truncated)


class _Batch:
    """Rows that are written together."""

    def __init__(self) -> None:
        self._parts: list[pa.RecordBatch] = []
        self._num_rows = self._num_tokens = 0

    def add(self, done: Tokenized) -> None:
        self._parts.append(done.stored)
        self._num_rows += done.num_rows
        self._num_tokens += done.num_tokens

    @property
    def is_full(self) -> bool:
        return self._num_rows >= ROWS_PER_BATCH or self._num_tokens >= TOKENS_PER_BATCH

    def write(self, writer: pa.RecordBatchWriter) -> None:
        # One record batch, or none where nothing was stored.
        for batch in pa.Table.from_batches(self._parts).combine_chunks().to_batches():
            writer.write_batch(batch)
        self._parts, self._num_rows, self._num_tokens = [], 0, 0


def _stored(
    encoded: EncodedRows, given: pa.Table, rows: NDArray[np.int64], schema: pa.Schema
) -> pa.RecordBatch:
    """Return rows in the form of the file."""
    origin = np.arange(len(rows)) if encoded.origin is None else encoded.origin
    ends = np.cumsum([0, *(len(ids) for ids in encoded.tokens)])
    flat = np.concatenate([np.empty(0, np.int32), *encoded.tokens])
    own = {
        "input_ids": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(flat)),
        "row": pa.array(rows[origin]),
        **encoded.targets,
    }
    kept = given.select([name for name in schema.names if name not in own])
    own |= {
        name: kept.column(name).take(pa.array(origin)).combine_chunks()
        for name in kept.column_names
    }
    return pa.record_batch([own[name] for name in schema.names], schema=schema)
