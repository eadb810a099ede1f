"""Data sets that are tokenized once, then memory-mapped by every worker, trial and epoch."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kovar.config import canonical_json
from kovar.data.cache import ensure_folder, read_meta
from kovar.data.layouts import LAYOUTS, EncodedRows, Encoding, Layout, LayoutName, SplitName
from kovar.data.progress import Progress, silent
from kovar.data.source import Source, load_table
from kovar.data.spec import DataSpec, EvaluationSource
from kovar.data.split import split_rows
from kovar.data.tokenizer import TOKENIZER_FILE, load_tokenizer
from kovar.errors import DataError

FORMAT: Final = 1
ROWS_PER_BATCH: Final = 65_536
ROWS_PER_CALL: Final = 1_024

CONSTANTS: Final = b"kovar.constants"
"""Where the schema of a stored split keeps the layout's constants, as JSON."""


class Split:
    """One split, memory-mapped: a row is read when it is asked for.

    Beside the tokens it holds what the data set's layout stores of each row.

    Args:
        path: an Arrow IPC file of a tokenized data set.

    Attributes:
        lengths: number of tokens of each row, int32.
        rows: each row's number in the source, int64.
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
        self.rows: NDArray[np.int64] = self.column("row")

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
    """Rows of a source that form one split, and how often each label stands in them."""

    source: Source
    rows: NDArray[np.int64]
    label_counts: Counter[str]

    @classmethod
    def of(cls, source: Source, rows: NDArray[np.int64], layout: Layout) -> _Part:
        return cls(source, rows, layout.label_counts(source.table.take(pa.array(rows))))


def prepare_dataset(
    spec: DataSpec,
    *,
    layout: LayoutName = "text-label",
    tokenizer_dir: Path,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
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

    Raises:
        DataError: a mistake in the data, or a label that one of the splits lacks.
        ModelError: the tokenizer is missing or damaged.
        SettingsError: the cache cannot be written.
    """
    report = progress or silent
    kind = LAYOUTS[layout]
    tokenizer = load_tokenizer(tokenizer_dir)
    train, evaluation, split_facts = _split(spec, kind, cache_dir, base_dir, report)
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
            counts[name] = _write_split(folder, part, kind, encoding, report)
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
    spec: DataSpec, layout: Layout, cache_dir: Path, base_dir: Path, progress: Progress
) -> tuple[_Part, _Part, dict[str, Any]]:
    load: Callable[..., Source] = load_table
    places = {
        "layout": layout.name,
        "cache_dir": cache_dir,
        "base_dir": base_dir,
        "progress": progress,
    }
    source = load(spec, **places)
    if isinstance(spec.evaluation, EvaluationSource):
        other = spec.model_copy(update={"source": spec.evaluation.source})
        fewest = min(1, layout.min_labels)
        held_out = load(other, **places, field="data.evaluation.source", min_labels=fewest)
        parts = [
            _Part.of(part, np.arange(part.num_rows, dtype=np.int64), layout)
            for part in (source, held_out)
        ]
        return parts[0], parts[1], {"evaluation": "source"}
    train, evaluation = _divided(source, spec.evaluation, layout, seed=spec.split_seed)
    facts = {"evaluation": len(evaluation), "seed": spec.split_seed}
    return _Part.of(source, train, layout), _Part.of(source, evaluation, layout), facts


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """What a tokenizer may be trained on: held-out rows are not among it.

    Args:
        rows: the texts, one or more of each training row.
        digest: SHA-256 of what decides them.
    """

    rows: list[str]
    digest: str


def training_texts(
    spec: DataSpec,
    *,
    layout: LayoutName = "text-label",
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
) -> TrainingTexts:
    """Read the texts of the training split.

    Raises:
        DataError: a mistake in the data.
    """
    kind = LAYOUTS[layout]
    train, _, split = _split(spec, kind, cache_dir, base_dir, progress or silent)
    identity = {"content": train.source.content_digest, "split": split, "layout": layout}
    digest = hashlib.sha256(canonical_json(identity)).hexdigest()
    table = train.source.table.take(pa.array(train.rows))
    return TrainingTexts(list(kind.written(table, spec)), digest)


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
    return _divided(source, spec.evaluation, LAYOUTS[layout], seed=spec.split_seed)[1]


def _divided(
    source: Source, asked: int | float, layout: Layout, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the training rows and the held-out rows of one source."""
    num_rows = source.num_rows
    num_evaluation = max(1, round(asked * num_rows)) if isinstance(asked, float) else asked
    if num_evaluation >= num_rows:
        raise DataError(
            "no row would be left to train on",
            field="data.evaluation",
            got=asked,
            allowed=f"at most {num_rows - 1:,}: the data set has {num_rows:,} rows",
        )
    return split_rows(layout.keys(source.table), num_evaluation=num_evaluation, seed=seed)


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
    folder: Path, part: _Part, layout: Layout, encoding: Encoding, progress: Progress
) -> dict[str, Any]:
    """Tokenize the rows of one split into `<split>.arrow`; return counts."""
    name = encoding.split
    keeps = layout.texts(encoding.spec) if name == "evaluation" else ()
    table = part.source.table.take(pa.array(part.rows))
    schema = pa.schema(
        [
            pa.field("input_ids", pa.list_(pa.int32())),
            *layout.targets(encoding.spec),
            pa.field("row", pa.int64()),
            *(table.schema.field(text) for text in keeps),
        ]
    )
    if constants := layout.constants(encoding):
        schema = schema.with_metadata({CONSTANTS: canonical_json(constants)})
    num_tokens = num_truncated = num_stored = 0
    progress(f"tokenizing {name}", 0, table.num_rows)
    with pa.ipc.new_file(str(folder / f"{name}.arrow"), schema) as writer:
        for start in range(0, table.num_rows, ROWS_PER_BATCH):
            found = []
            for first in range(start, min(start + ROWS_PER_BATCH, table.num_rows), ROWS_PER_CALL):
                rows = min(ROWS_PER_CALL, start + ROWS_PER_BATCH - first)
                some = table.slice(first, rows)
                encoded = layout.encode(some, encoding)
                num_truncated += encoded.num_truncated
                found.append(_stored(encoded, some, part.rows[first : first + rows], schema))
                progress(f"tokenizing {name}", first + some.num_rows, table.num_rows)
            # One batch, or none where nothing was stored.
            for batch in pa.Table.from_batches(found).combine_chunks().to_batches():
                num_tokens += len(batch.column("input_ids").values)
                num_stored += batch.num_rows
                writer.write_batch(batch)
    counts = part.label_counts
    return {
        "rows": num_stored,
        "tokens": num_tokens,
        "truncated": num_truncated,
        "labels": {label: counts[label] for label in encoding.labels},
    }


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
