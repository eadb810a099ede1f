"""Evaluation of a version through the very runtime that serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kovar.evaluation.metrics import ClassificationMetrics, classification_metrics

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.inference import Runtime

CHUNK = 256


@dataclass(frozen=True)
class Evaluation:
    """What a runtime predicted, and how good that is.

    `predicted` is the label index per row, shape [rows], int64.
    """

    metrics: ClassificationMetrics
    predicted: npt.NDArray[np.int64]


def evaluate(
    runtime: Runtime,
    texts: Sequence[str],
    labels: npt.NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every text and score the answers.

    Args:
        runtime: a loaded version.
        texts: inputs, shape [rows].
        labels: true label index per row, in the order of `runtime.labels`.
        progress: called with (rows done, rows in all).
    """
    import numpy as np

    table: list[list[float]] = []
    for start in range(0, len(texts), CHUNK):
        predictions = runtime.predict(texts[start : start + CHUNK])
        table += [[one.scores[label] for label in runtime.labels] for one in predictions]
        if progress is not None:
            progress(len(table), len(texts))
    scores = np.asarray(table, dtype=np.float64)
    found = scores.argmax(axis=1)
    metrics = classification_metrics(labels, found, labels=runtime.labels, scores=scores)
    return Evaluation(metrics, found)
