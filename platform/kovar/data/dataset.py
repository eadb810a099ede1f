"""Data sets that are tokenized once, then memory-mapped by every worker, trial and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kovar.config import canonical_json
from kovar.data.cache import ensure_folder, read_meta
from kovar.data.progress import Progress, silent
from kovar.data.source import Source, load_table
from kovar.data.spec import DataSpec, EvaluationSource
from kovar.data.split import split_rows
from kovar.data.tokenizer import TOKENIZER_FILE, load_tokenizer
from kovar.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT: Final = 1
ROWS_PER_BATCH: Final = 65_536
ROWS_PER_CALL: Final = 1_024

SplitName = Literal["train", "evaluation"]


class Split:
    """One split, memory-mapped: a row is read when it is asked for.

    Args:
        path: an Arrow IPC file of a tokenized data set.

    Attributes:
        lengths: number of tokens of each row, int32.
        labels: index of each row's label in the data set's `labels`, int64.
        rows: each row's number in the source, int64.
    """

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._batches = batches
        self._has_texts = "text" in reader.schema.names
        self._tokens = [batch.column("input_ids").values.to_numpy() for batch in batches]
        self._offsets = [batch.column("input_ids").offsets.to_numpy() for batch in batches]
        lengths = [np.diff(offsets).astype(np.int32) for offsets in self._offsets]
        self.lengths: NDArray[np.int32] = _joined(lengths, np.int32)
        self.labels: NDArray[np.int64] = _joined(
            [batch.column("label").to_numpy() for batch in batches], np.int64
        )
        self.rows: NDArray[np.int64] = _joined(
            [batch.column("row").to_numpy() for batch in batches], np.int64
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def input_ids(self, row: int) -> NDArray[np.int32]:
        """Return the tokens of one row, a view of the file."""
        index, local = divmod(int(row), ROWS_PER_BATCH)
        offsets = self._offsets[index]
        tokens: NDArray[np.int32] = self._tokens[index][offsets[local] : offsets[local + 1]]
        return tokens

    @property
    def texts(self) -> list[str]:
        """The texts of all rows; kept for the evaluation split alone.

        Raises:
            ValueError: this is the training split.
        """
        if not self._has_texts:
            raise ValueError("the training split keeps no texts")
        return [text for batch in self._batches for text in batch.column("text").to_pylist()]


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
    """Rows of a source that form one split."""

    source: Source
    rows: NDArray[np.int64]

    @property
    def labels(self) -> list[str]:
        labels: list[str] = self.source.table.column("label").take(self.rows).to_pylist()
        return labels


def prepare_dataset(
    spec: DataSpec,
    *,
    tokenizer_dir: Path,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
) -> TokenizedDataset:
    """Read, validate, split and tokenize a data set, or find the result in the cache.

    Safe to call from several processes at once: one works, the others wait for it.

    Args:
        spec: the data block of a specification.
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
    tokenizer = load_tokenizer(tokenizer_dir)
    train, evaluation, split_facts = _split(spec, cache_dir, base_dir, report)
    labels = _check_labels(train, evaluation, spec)
    identity = {
        "format": FORMAT,
        "train": train.source.content_digest,
        "evaluation": evaluation.source.content_digest,
        "labels": labels,
        "split": split_facts,
        "tokenizer": hashlib.sha256((tokenizer_dir / TOKENIZER_FILE).read_bytes()).hexdigest(),
        "max_length": spec.max_length,
    }
    fingerprint = hashlib.sha256(canonical_json(identity)).hexdigest()

    def build(folder: Path) -> dict[str, Any]:
        tokenizer.enable_truncation(spec.max_length)
        parts = {"train": train, "evaluation": evaluation}
        counts = {
            name: _write_split(folder, name, part, labels, tokenizer, report)
            for name, part in parts.items()
        }
        facts = {
            "split": split_facts,
            "max_length": spec.max_length,
            "tokenizer_sha256": identity["tokenizer"],
            **counts,
        }
        return {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "labels": labels,
            "num_train": len(train.rows),
            "num_evaluation": len(evaluation.rows),
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
    spec: DataSpec, cache_dir: Path, base_dir: Path, progress: Progress
) -> tuple[_Part, _Part, dict[str, Any]]:
    load: Callable[..., Source] = load_table
    places = {"cache_dir": cache_dir, "base_dir": base_dir, "progress": progress}
    source = load(spec, **places)
    if isinstance(spec.evaluation, EvaluationSource):
        other = spec.model_copy(update={"source": spec.evaluation.source})
        held_out = load(other, **places, field="data.evaluation.source", min_labels=1)
        parts = [
            _Part(part, np.arange(part.num_rows, dtype=np.int64)) for part in (source, held_out)
        ]
        return parts[0], parts[1], {"evaluation": "source"}
    train, evaluation = _divided(source, spec.evaluation, seed=spec.split_seed)
    facts = {"evaluation": len(evaluation), "seed": spec.split_seed}
    return _Part(source, train), _Part(source, evaluation), facts


def held_out_rows(spec: DataSpec, source: Source) -> NDArray[np.int64]:
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
    return _divided(source, spec.evaluation, seed=spec.split_seed)[1]


def _divided(
    source: Source, asked: int | float, *, seed: int
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
    texts = source.table.column("text").to_pylist()
    return split_rows(texts, num_evaluation=num_evaluation, seed=seed)


def _check_labels(train: _Part, evaluation: _Part, spec: DataSpec) -> tuple[str, ...]:
    """Return the labels in order; both splits must hold all of them."""
    known = train.source.labels
    in_train, in_evaluation = set(train.labels), set(evaluation.labels)
    from_source = isinstance(spec.evaluation, EvaluationSource)
    for missing, where in (
        (in_evaluation - in_train, "training"),
        (in_train - in_evaluation, "evaluation"),
        (set(known) - in_train, "training"),
    ):
        if not missing:
            continue
        name = min(missing)
        raise DataError(
            f"the label {name!r} is missing in the {where} split",
            field="data.evaluation.source" if from_source else "data.evaluation",
            got=f"{len(missing)} of {len(set(known) | in_evaluation)} labels missing in it",
            allowed="every label in both splits",
            hint="add rows with it, merge it with another label, or hold out "
            f"{'more' if where == 'evaluation' else 'fewer'} rows",
        )
    return known


def _write_split(
    folder: Path,
    name: str,
    part: _Part,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    progress: Progress,
) -> dict[str, Any]:
    """Tokenize the rows of one split into `<name>.arrow`; return counts."""
    keeps_texts = name == "evaluation"
    schema = pa.schema(
        [("input_ids", pa.list_(pa.int32())), ("label", pa.int64()), ("row", pa.int64())]
        + ([("text", pa.string())] if keeps_texts else [])
    )
    table = part.source.table.take(pa.array(part.rows))
    index_of = {label: index for index, label in enumerate(labels)}
    num_tokens = num_truncated = 0
    label_counts = dict.fromkeys(labels, 0)
    progress(f"tokenizing {name}", 0, table.num_rows)
    with pa.ipc.new_file(str(folder / f"{name}.arrow"), schema) as writer:
        for start in range(0, table.num_rows, ROWS_PER_BATCH):
            texts = table.column("text").slice(start, ROWS_PER_BATCH).to_pylist()
            names = table.column("label").slice(start, ROWS_PER_BATCH).to_pylist()
            tokens: list[NDArray[np.int32]] = []
            for ids, was_cut in _encode(texts, tokenizer):
                tokens.append(ids)
                num_truncated += was_cut
                if len(tokens) % ROWS_PER_CALL == 0:
                    progress(f"tokenizing {name}", start + len(tokens), table.num_rows)
            offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])])
            num_tokens += int(offsets[-1])
            columns = [
                pa.ListArray.from_arrays(
                    pa.array(offsets, pa.int32()), pa.array(np.concatenate(tokens))
                ),
                pa.array([index_of[label] for label in names], pa.int64()),
                pa.array(part.rows[start : start + ROWS_PER_BATCH]),
            ]
            for label in names:
                label_counts[label] += 1
            columns += [pa.array(texts, pa.string())] if keeps_texts else []
            writer.write_batch(pa.record_batch(columns, schema=schema))
    progress(f"tokenizing {name}", table.num_rows, table.num_rows)
    return {
        "rows": table.num_rows,
        "tokens": num_tokens,
        "truncated": num_truncated,
        "labels": label_counts,
    }


def _encode(texts: list[str], tokenizer: Tokenizer) -> Iterator[tuple[NDArray[np.int32], bool]]:
    """Yield the tokens of each text, and whether it was cut to the maximum length."""
    for start in range(0, len(texts), ROWS_PER_CALL):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + ROWS_PER_CALL]):
            yield np.array(encoding.ids, dtype=np.int32), bool(encoding.overflowing)
