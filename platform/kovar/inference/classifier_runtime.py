"""What all runtimes of classifiers share: reading, probabilities, embeddings, attributions."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kovar.inference.reader import Padded, Reader
from kovar.inference.runtime import Attribution, Encoded, Prediction, Runtime, Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kovar.inference.attributor import Attributor

    Table = NDArray[np.float32]


class ClassifierRuntime(Runtime):
    """A classifier of texts; what computes its logits is left open.

    Args:
        reader: turns texts into token ids.
        precision: that it computes in.
        load_attributor: loads what explains answers, when it is first asked for.
    """

    def __init__(
        self, reader: Reader, *, precision: str, load_attributor: Callable[[], Attributor]
    ) -> None:
        self.labels = reader.files.labels
        self.max_length = reader.max_length
        self.precision = precision
        self.any_labels = reader.any_labels
        self.vocabulary_size = reader.vocabulary_size
        self.embedding_size = reader.embedding_size
        self.reader = reader
        self._load_attributor = load_attributor
        self._attributor: Attributor | None = None
        self._attributor_lock = threading.Lock()

    @abstractmethod
    def logits(self, inputs: Padded) -> Table:
        """Return the model's outputs, shape (rows, labels)."""

    @abstractmethod
    def pooled(self, inputs: Padded) -> Table:
        """Return the mean of the last hidden states over each row's tokens, shape (rows, size)."""

    def tokenize(self, texts: Sequence[Text]) -> list[Encoded]:
        """Turn texts into token ids; the library releases the GIL meanwhile."""
        return self.reader.tokenize(texts)

    def scores(self, batch: Sequence[Encoded]) -> Table:
        """Return the probability of every label; see `Runtime.scores`."""
        table = self.logits(self._pad(batch))
        _check_finite(table)
        return probabilities(table, any_labels=self.any_labels)

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        """Predict one batch, padded to its longest row; see `Runtime.run`."""
        table = self.scores(batch).tolist()
        return [self.prediction(row, item) for row, item in zip(table, batch, strict=True)]

    def embed(self, batch: Sequence[Encoded]) -> Table:
        """Return embeddings of length 1; see `Runtime.embed`."""
        return of_length_one(self.pooled(self._pad(batch)))

    def _pad(self, batch: Sequence[Encoded]) -> Padded:
        return self.reader.pad(batch, step=self.length_step)

    def attribute(self, batch: Sequence[Encoded]) -> list[Attribution]:
        """Explain answers; see `Runtime.attribute`."""
        with self._attributor_lock:  # batches at a time load one model, not one each
            if self._attributor is None:
                self._attributor = self._load_attributor()
        weights = [self._attributor.weights(item) for item in batch]
        return [
            Attribution(self.prediction(row.scores, item), row.weights)
            for row, item in zip(weights, batch, strict=True)
        ]

    def spans(self, text: Text) -> list[tuple[str, int, int]]:
        """Return where tokens stand in their text; see `Runtime.spans`."""
        return self.reader.spans(text)

    def prediction(self, scores: Sequence[float], item: Encoded) -> Prediction:
        """Return the answer that probabilities make."""
        best = max(range(len(scores)), key=scores.__getitem__)
        named = dict(zip(self.labels, scores, strict=True))
        return Prediction(self.labels[best], scores[best], named, item.truncated)


def probabilities(logits: Table, *, any_labels: bool) -> Table:
    """Return softmax over labels, or where a text has any number of them a sigmoid of each."""
    import numpy as np

    if any_labels:
        # e^-|x| never overflows, whichever side of zero the logit is on.
        small = np.exp(-np.abs(logits))
        table: Table = np.where(logits >= 0, 1, small) / (1 + small)
        return table
    powers: Table = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def of_length_one(vectors: Table) -> Table:
    """Divide each row by its Euclidean length, shape (rows, size)."""
    import numpy as np

    _check_finite(vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Table = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result


def _check_finite(table: Table) -> None:
    import numpy as np

    if not np.isfinite(table).all():
        raise FloatingPointError("the model's output is not finite")
