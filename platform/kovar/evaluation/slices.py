"""Where is a version weak? Metrics of the rows of one length, or with one value in a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from kovar.evaluation.entities import EntityMetrics, entity_intervals, entity_metrics
from kovar.evaluation.metrics import classification_metrics
from kovar.evaluation.multilabel import (
    MultilabelMetrics,
    multilabel_intervals,
    multilabel_metrics,
)
from kovar.registry.interval import Interval, macro_f1_interval, wilson

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_VALUES: Final = 20
"""Values of a column that have a slice of their own; the rarer ones share one."""


@dataclass(frozen=True)
class Slice:
    """Metrics of some rows.

    Args:
        by: what divides the rows: `length` or the name of a column.
        value: what these rows have in common.
        num_rows: how many they are.
        accuracy: share that is right.
        accuracy_interval: its 95 % interval.
        macro_f1: mean F1 of the labels that these rows have or are given.
        macro_f1_interval: its 95 % interval.
    """

    by: str
    value: str
    num_rows: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {
            "accuracy_interval": list(self.accuracy_interval),
            "macro_f1_interval": list(self.macro_f1_interval),
        }


def length_slices(lengths: Sequence[int], *, edges: Sequence[int]) -> list[str]:
    """Name the bucket of each length: `1 to 16`, `17 to 32`, `over 32` for edges 16 and 32.

    Args:
        lengths: tokens of each row.
        edges: longest length of each bucket but the last, ascending.
    """
    import numpy as np

    first, last = f"1 to {edges[0]}", f"over {edges[-1]}"
    names = [first, *(f"{low + 1} to {high}" for low, high in pairwise(edges)), last]
    buckets = np.searchsorted(np.asarray(edges), np.asarray(lengths), side="left")
    return [names[bucket] for bucket in buckets]


def column_slices(values: Sequence[object]) -> list[str]:
    """Name the slice of each row: the value as text; the rare values of a long list share one."""
    names = ["(none)" if value is None else str(value) for value in values]
    counts = Counter(names)
    if len(counts) <= MAX_VALUES:
        return names
    frequent = {name for name, _ in sorted(counts.items(), key=_most_first)[: MAX_VALUES - 1]}
    rest = f"({len(counts) - len(frequent):,} other values)"
    return [name if name in frequent else rest for name in names]


def _most_first(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


def slice_metrics(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    groups: Mapping[str, Sequence[str]],
) -> tuple[Slice, ...]:
    """Score the rows of each slice.

    Args:
        true: label index per row, shape [rows].
        predicted: predicted label index per row, shape [rows].
        groups: what divides the rows → name of each row's slice, in the order of the rows.

    Returns:
        Slices in the order of `groups`; within one, of their names (numbers as numbers).
    """
    return tuple(
        _slice(by, value, true[rows], predicted[rows]) for by, value, rows in _members(groups)
    )


def label_slices(
    true: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    groups: Mapping[str, Sequence[str]],
) -> tuple[Slice, ...]:
    """Score the rows of each slice, where a row has any number of labels.

    A slice's accuracy is the share of rows whose labels are all right.

    Args:
        true: whether a row has a label, shape [rows, labels].
        scores: probabilities, shape [rows, labels].
        groups: as for `slice_metrics`.
    """
    names = [str(index) for index in range(true.shape[1])]
    found = []
    for by, value, rows in _members(groups):
        metrics = multilabel_metrics(true[rows], scores[rows], labels=names)
        intervals = multilabel_intervals(true[rows], scores[rows])
        found.append(_of(by, value, metrics, intervals))
    return tuple(found)


def tag_slices(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    groups: Mapping[str, Sequence[str]],
) -> tuple[Slice, ...]:
    """Score the sentences of each slice; a slice's accuracy is the share of words.

    Args:
        true: tags per sentence.
        predicted: tags per sentence.
        groups: as for `slice_metrics`.
    """
    found = []
    for by, value, members in _members(groups):
        rows = members.nonzero()[0].tolist()
        pair = [true[row] for row in rows], [predicted[row] for row in rows]
        found.append(_of(by, value, entity_metrics(*pair), entity_intervals(*pair)))
    return tuple(found)


def _of(
    by: str,
    value: str,
    metrics: MultilabelMetrics | EntityMetrics,
    intervals: Mapping[str, Interval],
) -> Slice:
    return Slice(
        by=by,
        value=value,
        num_rows=metrics.num_rows,
        accuracy=metrics.accuracy,
        accuracy_interval=intervals["accuracy"],
        macro_f1=metrics.macro_f1,
        macro_f1_interval=intervals["macro_f1"],
    )


def _members(
    groups: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Yield what divides, the slice's name, and which rows are in it."""
    import numpy as np

    for by, names in groups.items():
        values, members = np.unique(np.asarray(names, dtype=object), return_inverse=True)
        for index in sorted(range(len(values)), key=lambda index: _natural(str(values[index]))):
            yield by, str(values[index]), members == index


def _natural(name: str) -> tuple[bool, float, str]:
    """Sort `1 to 16` before `17 to 32`, and what begins with no number behind."""
    head = name.split(" ")[0]
    return (False, float(head), name) if head.isdecimal() else (True, 0.0, name)


def _slice(
    by: str, value: str, true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> Slice:
    import numpy as np

    # Labels that do not occur among these rows would only pull the mean down.
    present, indices = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    metrics = classification_metrics(
        indices[: len(true)], indices[len(true) :], labels=[str(label) for label in present]
    )
    return Slice(
        by=by,
        value=value,
        num_rows=metrics.num_rows,
        accuracy=metrics.accuracy,
        accuracy_interval=wilson(metrics.accuracy, metrics.num_rows),
        macro_f1=metrics.macro_f1,
        macro_f1_interval=macro_f1_interval(metrics.confusion_matrix),
    )
