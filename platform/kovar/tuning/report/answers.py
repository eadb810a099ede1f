"""A trial's answers on the evaluation split, read as sums that its metrics follow from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.evaluation.paired import RowSums

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

LABELS_KEY: Final = b"kovar.labels"
"""Metadata of the Parquet file: the names of the labels in the order of their index, as JSON."""

Sums = Callable[["pa.Table"], RowSums | None]


def read_answers(path: Path, *, metric: str) -> tuple[RowSums, int] | None:
    """Read what a metric follows from.

    Args:
        path: Parquet file, one row per row of the evaluation split, in its order.
        metric: name of the metric.

    Returns:
        The sums and the number of rows; None where the file is absent or cannot tell this metric.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if metric not in _METRICS or not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    found = _METRICS[metric](table) if table.num_rows else None
    return None if found is None else (found, table.num_rows)


def _ratio(numerators: npt.NDArray[Any], denominators: npt.NDArray[Any]) -> RowSums:
    """Return the metric Σ numerators / Σ denominators."""
    import numpy as np

    columns = np.stack([numerators, denominators], axis=1)
    return RowSums(lambda: columns, lambda sums: _divide(sums[:, 0], sums[:, 1]))


def _divide(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Divide; 0 where nothing is divided by nothing, as scikit-learn's `zero_division=0`."""
    import numpy as np

    found: npt.NDArray[np.float64] = np.divide(
        above, below, out=np.zeros(below.shape), where=below > 0
    )
    return found


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = table.column(name).to_numpy()
    return found


def _has(table: pa.Table, *names: str) -> bool:
    return set(names) <= set(table.column_names)


def _has_lists(table: pa.Table) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(table.schema.field("true").type))


def _ones(table: pa.Table) -> npt.NDArray[np.float64]:
    import numpy as np

    return np.ones(table.num_rows)


def _accuracy(table: pa.Table) -> RowSums | None:
    import numpy as np

    if _has(table, "words_right", "num_words"):
        return _ratio(_column(table, "words_right"), _column(table, "num_words"))
    if not _has(table, "true", "predicted"):
        return None
    if _has_lists(table):
        true, predicted = _indicators(table)
        return _ratio((true == predicted).all(axis=1), _ones(table))
    right = np.equal(_column(table, "true"), _column(table, "predicted"))
    return _ratio(right, _ones(table))


def _loss(table: pa.Table) -> RowSums | None:
    if not _has(table, "loss"):
        return None
    return _ratio(_column(table, "loss"), _num_targets(table))


def _num_targets(table: pa.Table) -> npt.NDArray[Any]:
    """Return how many targets the loss of each row sums over: its tokens, words, labels or one."""
    for name in ("num_tokens", "num_words"):
        if _has(table, name):
            return _column(table, name)
    if _has(table, "true") and _has_lists(table):
        return _ones(table) * _num_labels(table)
    return _ones(table)


def _perplexity(table: pa.Table) -> RowSums | None:
    import numpy as np

    loss = _loss(table) if _has(table, "num_tokens") else None
    return None if loss is None else RowSums(loss.columns, lambda sums: np.exp(loss.value(sums)))


def _token_accuracy(table: pa.Table) -> RowSums | None:
    if not _has(table, "num_right", "num_tokens"):
        return None
    return _ratio(_column(table, "num_right"), _column(table, "num_tokens"))


def _macro_f1(table: pa.Table) -> RowSums | None:
    import numpy as np

    if not _has(table, "true", "predicted"):
        return None
    num_labels = _num_labels(table)

    def columns() -> npt.NDArray[np.bool_]:
        true, predicted = _indicators(table)
        return np.concatenate([true & predicted, true, predicted], axis=1)

    def value(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        right, true, predicted = np.split(sums, [num_labels, 2 * num_labels], axis=1)
        means: npt.NDArray[np.float64] = _divide(2 * right, true + predicted).mean(axis=1)
        return means

    return RowSums(columns, value)  # type: ignore[arg-type]


def _micro_f1(table: pa.Table) -> RowSums | None:
    if not _has(table, "true", "predicted"):
        return None
    true, predicted = _indicators(table)
    return _ratio(2 * (true & predicted).sum(axis=1), true.sum(axis=1) + predicted.sum(axis=1))


def _f1(table: pa.Table) -> RowSums | None:
    if not _has(table, "num_right", "num_predicted", "num_true"):
        return None
    counts = _column(table, "num_predicted") + _column(table, "num_true")
    return _ratio(2 * _column(table, "num_right"), counts)


def _share_of(name: str) -> Sums:
    def share(table: pa.Table) -> RowSums | None:
        if not _has(table, "num_right", name):
            return None
        return _ratio(_column(table, "num_right"), _column(table, name))

    return share


def _num_labels(table: pa.Table) -> int:
    metadata = table.schema.metadata or {}
    if LABELS_KEY in metadata:
        return len(json.loads(metadata[LABELS_KEY]))
    highest = 0
    for name in ("true", "predicted"):
        column = table.column(name)
        values = column.combine_chunks().flatten() if _has_lists(table) else column
        highest = max([highest, *(int(one) + 1 for one in values.unique().to_pylist())])
    return highest


def _indicators(table: pa.Table) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which labels each row has and which are predicted, each of shape [rows, labels]."""
    import numpy as np

    shape = table.num_rows, _num_labels(table)
    both = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for name, filled in zip(("true", "predicted"), both, strict=True):
        column = table.column(name).combine_chunks()
        if _has_lists(table):
            rows = np.repeat(np.arange(len(column)), column.value_lengths().to_numpy())
            filled[rows, column.flatten().to_numpy()] = True
        else:
            filled[np.arange(len(column)), column.to_numpy()] = True
    return both


_METRICS: Final[dict[str, Sums]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "loss": _loss,
    "macro_f1": _macro_f1,
    "micro_f1": _micro_f1,
    "perplexity": _perplexity,
    "precision": _share_of("num_predicted"),
    "recall": _share_of("num_true"),
    "token_accuracy": _token_accuracy,
}
