"""How many rows and tokens a data set has, found without downloading or tokenizing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kovar.data.cache import read_meta
from kovar.data.files import READERS
from kovar.data.layouts import LAYOUTS, LayoutName
from kovar.data.package import PACKAGES
from kovar.data.spec import DataSpec, EvaluationSource

BYTES_PER_TOKEN: Final = (2.5, 5.0)
"""UTF-8 bytes of text in one token. The movie reviews have 4.5; a Chinese character is 3 bytes."""

SPECIAL_TOKENS: Final = 2
"""Put around every row."""

COUNTED_BYTES: Final = 1 << 20
"""Lines are counted in this much of a file; the rest is taken to be like it."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Rows of both splits, and tokens per row.

    Args:
        num_train: rows to train on.
        num_evaluation: rows held out.
        low_length: tokens of the mean row at least.
        high_length: tokens of the mean row at most; equal when they have been counted.
        origin: how it is known, as a sentence.
    """

    num_train: int
    num_evaluation: int
    low_length: float
    high_length: float
    origin: str


@dataclass(frozen=True, slots=True)
class UnknownData:
    """Nothing is known yet.

    Args:
        reason: why, as a sentence.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class _Texts:
    """Rows and bytes of text, and whether the rows have been counted."""

    num_rows: int
    num_bytes: int
    counted: bool


def read_facts(
    spec: DataSpec,
    *,
    layout: LayoutName = "text-label",
    tokenizer_digest: str | None = None,
    cache_dir: Path,
    base_dir: Path,
) -> DataFacts | UnknownData:
    """Return what is known about a data set at this moment.

    Args:
        spec: the data block of a specification.
        layout: what the rows are made of.
        tokenizer_digest: SHA-256 of the model's tokenizer.json, to find the tokenized rows.
        cache_dir: the cache folder of the settings.
        base_dir: folder that relative paths start from: the specification's own.
    """
    kind = LAYOUTS[layout]
    columns = kind.tokenized(spec)
    texts = _texts(spec.source, columns, base_dir)
    if isinstance(texts, UnknownData):
        return texts
    if isinstance(spec.evaluation, EvaluationSource):
        held_out = _texts(spec.evaluation.source, columns, base_dir)
        if isinstance(held_out, UnknownData):
            return held_out
        num_train, num_evaluation = texts.num_rows, held_out.num_rows
        split: dict[str, object] = {"evaluation": "source"}
        counted = texts.counted and held_out.counted
    else:
        share = spec.evaluation
        number = max(1, round(share * texts.num_rows)) if isinstance(share, float) else share
        num_evaluation = min(number, texts.num_rows)
        num_train = texts.num_rows - num_evaluation
        split = {"evaluation": num_evaluation, "seed": spec.split_seed}
        counted = texts.counted
    if counted and tokenizer_digest is not None:
        identity = (num_train, num_evaluation, spec.max_length, tokenizer_digest)
        folder = cache_dir / "tokenized"
        length = _tokenized_length(folder, identity, {"split": split, **kind.identity(spec)})
        if length is not None:
            origin = f"the tokens of {num_train:,} training rows are counted"
            return DataFacts(num_train, num_evaluation, length, length, origin)
    per_row = texts.num_bytes / max(1, texts.num_rows)
    few, many = (
        min(float(spec.max_length), per_row / each + SPECIAL_TOKENS)
        for each in reversed(BYTES_PER_TOKEN)
    )
    about = "" if counted else "about "
    origin = f"{about}{num_train:,} training rows of about {per_row:.0f} bytes each"
    return DataFacts(num_train, num_evaluation, few, many, origin)


def _tokenized_length(
    folder: Path, identity: tuple[int, int, int, str], known: dict[str, object]
) -> float | None:
    """Return the mean tokens of a row in a cached data set that agrees in all that is known."""
    for candidate in sorted(folder.glob("*/meta.json")):
        try:
            meta = read_meta(candidate.parent)
            facts = meta["facts"]
            found = (
                meta["num_train"],
                meta["num_evaluation"],
                facts["max_length"],
                facts["tokenizer_sha256"],
            )
            agrees = all(facts.get(name) == value for name, value in known.items())
            if found == identity and agrees:
                return float(facts["train"]["tokens"] / facts["train"]["rows"])
        except (ValueError, KeyError, TypeError, ZeroDivisionError):
            # A damaged folder is built again when it is needed; here it says nothing.
            continue
    return None


def _texts(source: str, columns: Sequence[str], base_dir: Path) -> _Texts | UnknownData:
    kind, separator, name = source.partition(":")
    if separator and kind == "package":
        package = PACKAGES.get(name)
        if package is None or not package.num_rows:
            return UnknownData(f"there is no packaged data set {name}")
        return _Texts(package.num_rows, package.text_bytes, counted=True)
    if separator and kind == "hub":
        return UnknownData("the rows of a hub data set are known when it has been downloaded")
    try:
        path = base_dir / Path(source).expanduser()
        files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
        files = [file for file in files if file.is_file() and file.suffix.lower() in READERS]
        if not files:
            return UnknownData(f"there is no data file at {path}")
        return _sum([_file(file, columns) for file in files])
    except (OSError, RuntimeError) as problem:  # RuntimeError: "~name" of nobody
        return UnknownData(f"the data cannot be read: {problem}")


def _sum(parts: Sequence[_Texts | UnknownData]) -> _Texts | UnknownData:
    known = [part for part in parts if isinstance(part, _Texts)]
    unknown = [part for part in parts if isinstance(part, UnknownData)]
    if unknown:
        return unknown[0]
    return _Texts(
        sum(part.num_rows for part in known),
        sum(part.num_bytes for part in known),
        all(part.counted for part in known),
    )


def _file(path: Path, columns: Sequence[str]) -> _Texts | UnknownData:
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path, columns)
        case ".csv" | ".tsv" | ".jsonl" | ".ndjson":
            return _lines(path, has_header=path.suffix.lower() in (".csv", ".tsv"))
        case kind:
            return UnknownData(f"the rows of {kind} files are known when they have been read")


def _parquet(path: Path, columns: Sequence[str]) -> _Texts | UnknownData:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        metadata = parquet.read_metadata(path)
    except (pa.ArrowInvalid, OSError):
        return UnknownData(f"{path.name} cannot be read")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(
        group.column(index).total_uncompressed_size
        for group in groups
        for index in range(group.num_columns)
        if _is_of(group.column(index).path_in_schema, columns)
    )
    return _Texts(metadata.num_rows, size, counted=True)


def _is_of(path: str, columns: Sequence[str]) -> bool:
    """The path of a list goes on after the column's name: `tokens.list.element`."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _lines(path: Path, *, has_header: bool) -> _Texts:
    """Count lines; a text that spans several counts as several rows, which are shorter then."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(COUNTED_BYTES)
    num_lines = start.count(b"\n") + (not start.endswith(b"\n") and len(start) == size)
    whole = len(start) == size
    num_rows = num_lines if whole else round(num_lines * size / len(start))
    # Quotes may hold line breaks, so only lines of JSON are rows for certain.
    return _Texts(max(0, num_rows - has_header), size, counted=whole and not has_header)
