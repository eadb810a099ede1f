"""Evaluation of a version through the very runtime that serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kovar.evaluation.metrics import ClassificationMetrics, classification_metrics

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.inference import Runtime, Text, TorchTagger

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
    texts: Sequence[Text],
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
    scores = score_texts(runtime, texts, progress=progress)
    found = scores.argmax(axis=1)
    metrics = classification_metrics(labels, found, labels=runtime.labels, scores=scores)
    return Evaluation(metrics, found)


def score_texts(
    runtime: Runtime,
    texts: Sequence[Text],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the probability of every label of every text, shape [rows, labels].

    Args:
        runtime: a loaded version.
        texts: inputs, shape [rows].
        progress: called with (rows done, rows in all).
    """
    import numpy as np

    table: list[list[float]] = []
    for start in range(0, len(texts), CHUNK):
        predictions = runtime.predict(texts[start : start + CHUNK])
        table += [[one.scores[label] for label in runtime.labels] for one in predictions]
        if progress is not None:
            progress(len(table), len(texts))
    return np.asarray(table, dtype=np.float64)


def tag_texts(
    tagger: TorchTagger,
    texts: Sequence[Sequence[str]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[str]]:
    """Return the tag of every word; of words that the model did not read, `O`.

    Args:
        tagger: a loaded version.
        texts: the words of each text.
        progress: called with (rows done, rows in all).
    """
    found: list[list[str]] = []
    for start in range(0, len(texts), CHUNK):
        for tagging in tagger.tag(texts[start : start + CHUNK]):
            found.append([tag or "O" for tag in tagging.tags])
        if progress is not None:
            progress(len(found), len(texts))
    return found
