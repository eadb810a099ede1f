"""A runtime without a model: its answers, failures and pauses follow from the words of a text."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

import numpy as np

from kovar.inference import Attribution, Encoded, Prediction, Runtime, Text


class ScriptedRuntime(Runtime):
    """One token per word.

    A text with `good` is positive. `poison` fails its batch, `fatal` kills the thread that runs
    it, `garbled` has no tokens. A batch waits until `gate` is set; `busy` says that one has begun.
    """

    name = "scripted"
    precision = "fp32"
    labels = ("negative", "positive")
    vocabulary_size = 100
    embedding_size = 2

    def __init__(self, *, max_length: int = 16) -> None:
        self.max_length = max_length
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self._words = ["", "good", "poison", "fatal"]

    def tokenize(self, texts: Sequence[str]) -> list[Encoded]:
        if any("garbled" in text for text in texts):
            raise ValueError("a message that quotes the text: garbled")
        rows = [[self._id(word) for word in text.split()] for text in texts]
        limit = self.max_length
        return [Encoded(tuple(row[:limit]), truncated=len(row) > limit) for row in rows]

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        self.batches.append([item.length for item in batch])
        self.threads.add(threading.current_thread().name)
        self.busy.set()
        self.gate.wait()
        if any(self._id("fatal") in item.ids for item in batch):
            raise SystemExit
        if any(self._id("poison") in item.ids for item in batch):
            raise ValueError("a message that quotes the text: poison")
        return [self._predict(item) for item in batch]

    def embed(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Point right where the text is positive, up where it is not."""
        labels = [one.label for one in self.run(batch)]
        return np.array([[1, 0] if label == "positive" else [0, 1] for label in labels], "f4")

    def attribute(self, batch: Sequence[Encoded]) -> list[Attribution]:
        """Every word counts 1, and `good` counts 2."""
        good = self._id("good")
        return [
            Attribution(
                self._predict(item), tuple(2.0 if word == good else 1.0 for word in item.ids)
            )
            for item in batch
        ]

    def spans(self, text: Text) -> list[tuple[str, int, int]]:
        words = [(match[0], match.start(), match.end()) for match in re.finditer(r"\S+", text)]
        return words[: self.max_length]

    def _predict(self, item: Encoded) -> Prediction:
        positive = 0.75 if self._id("good") in item.ids else 0.25
        scores = {"negative": 1 - positive, "positive": positive}
        label = max(scores, key=scores.__getitem__)
        return Prediction(label, scores[label], scores, item.truncated)

    def _id(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return self._words.index(word)
