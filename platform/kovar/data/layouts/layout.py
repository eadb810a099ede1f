"""What a data set's rows are made of: their columns, the checks, the tokens, what is stored.

A layout is stateless: one instance stands in the table `LAYOUTS` and serves every data set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kovar.data.columns import Column
from kovar.data.digest import content_digest
from kovar.data.spec import DataSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SplitName = Literal["train", "evaluation"]

LayoutName = Literal["text-label", "text-labels", "tagged-words", "masked-text", "causal-text"]
"""The layouts of the table; tasks name them."""


@dataclass(frozen=True, slots=True)
class Content:
    """The checked rows of a source.

    Args:
        table: the layout's own columns under the layout's own names, without nulls.
        labels: the distinct labels in the order of their indexes; none where nothing is labeled.
        numeric: whether the labels are integers, which are ordered as such.
    """

    table: pa.Table
    labels: tuple[str, ...] = ()
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Encoding:
    """What rows are tokenized with.

    Args:
        spec: the data block of a specification.
        tokenizer: truncates to `spec.max_length`.
        tokenizer_dir: the model's folder, for what `tokenizer.json` does not hold.
        labels: the labels of the data set.
        split: the split that the rows belong to.
    """

    spec: DataSpec
    tokenizer: Tokenizer
    tokenizer_dir: Path
    labels: tuple[str, ...]
    split: SplitName


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows as they are stored.

    Args:
        tokens: token ids of each stored row.
        targets: a value of each stored row for every one of `Layout.targets`.
        num_truncated: rows that lost their end.
        origin: which of the given rows each stored row was made of; None: one each, in order.
    """

    tokens: list[NDArray[np.int32]]
    targets: Mapping[str, pa.Array] = field(default_factory=dict)
    num_truncated: int = 0
    origin: NDArray[np.int64] | None = None


class Layout(ABC):
    """One row of the table.

    Attributes:
        name: as tasks and facts name it.
        settings: the fields of `DataSpec` that name its columns; a specification that sets one
            which only other layouts read is refused.
        min_labels: a training source with fewer distinct labels is refused.
        label_field: the field that errors about labels name.
        labels_in_both: whether the evaluation split must hold every label of the training split.
    """

    name: LayoutName
    settings: frozenset[str]
    min_labels: int = 0
    label_field: str = "data.label"
    labels_in_both: bool = True

    @abstractmethod
    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns that a source must have."""

    def tokenized(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the names of the source's columns whose texts become tokens."""
        return (spec.text,)

    @abstractmethod
    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Check a source's columns and return them under the layout's own names.

        Of a large source this is called for one piece after the other.

        Raises:
            DataError: with the field and the rows at fault.
        """

    def identity(self, spec: DataSpec, tokenizer_dir: Path | None = None) -> dict[str, Any]:
        """Return what decides the stored rows, beside content, tokenizer.json, split and length.

        Args:
            spec: the data block of a specification.
            tokenizer_dir: the model's folder; None where it is not known yet, in a plan: what
                depends on it is left out.
        """
        return {"layout": self.name}

    def constants(self, encoding: Encoding) -> dict[str, int]:
        """Return what collating must know beside the rows; `Split.constants` gives it back."""
        return {}

    def digest(self, pieces: Iterable[pa.Table]) -> str:
        """Return the digest of checked tables, which are iterated several times."""
        names = next(iter(pieces)).column_names
        return content_digest(pieces, names, header=f"kovar {self.name} 1")

    def label_counts(self, table: pa.Table) -> Counter[str]:
        """Return how often each label stands in a checked table."""
        return Counter()

    @abstractmethod
    def keys(self, table: pa.Table) -> Iterable[str]:
        """Yield a text of each row of a checked table; rows with equal texts stay together."""

    def written(self, table: pa.Table, spec: DataSpec) -> Iterable[str]:
        """Yield what people wrote in each row of a checked table: a tokenizer learns from it."""
        return self.keys(table)

    @abstractmethod
    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return what is stored beside the tokens of a row, by name and type."""

    def texts(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the columns of a checked table that the evaluation split keeps as they are."""
        return ("text",)

    @abstractmethod
    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize a thousand rows or so of a checked table. A pure function of its arguments."""


def as_lists(parts: Sequence[NDArray[Any]], kind: pa.DataType) -> pa.ListArray:
    """Return arrays, one for each row, as a column of lists.

    Args:
        parts: a value of each token of a row.
        kind: Arrow's type of one value.
    """
    ends = np.cumsum([0, *(len(part) for part in parts)])
    flat = np.concatenate(parts) if parts else np.empty(0, kind.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(flat, kind))
