"""What executes a version: texts in, predictions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Text = str | tuple[str, str]
"""One input of a classifier: a text, or two."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text, or a pair of them, as token ids.

    Attributes:
        ids: token ids, special tokens included.
        truncated: the text had more tokens than the model takes.
        second: where the second text of a pair begins; None where there is none.
    """

    ids: tuple[int, ...]
    truncated: bool = False
    second: int | None = None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: the label with the highest probability.
        score: its probability.
        scores: the probability of every label, in the order of the model's labels; where a text has
            any number of labels they do not sum to 1.
        truncated: only the beginning of the text was read.
    """

    label: str
    score: float
    scores: dict[str, float]
    truncated: bool


class Runtime(Protocol):
    """One loaded version on one chip at one precision.

    Attributes:
        name: short name, for example `torch`.
        labels: the labels in the order of the model's outputs.
        max_length: tokens that one text may have; longer texts are truncated.
        precision: the precision that it really runs at, for example `bf16`.
        any_labels: whether a text has any number of labels, each with a probability of its own.
    """

    name: str
    labels: tuple[str, ...]
    max_length: int
    precision: str
    any_labels: bool

    def tokenize(self, texts: Sequence[Text]) -> list[Encoded]:
        """Turn texts into token ids. May be called from any thread."""
        ...

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        """Predict one batch, padded to its longest row. One caller at a time.

        Raises:
            FloatingPointError: the model's output for a row is not finite.
        """
        ...

    def predict(self, texts: Sequence[Text], *, max_tokens: int = 2048) -> list[Prediction]:
        """Predict any number of texts, in batches of like length.

        Args:
            texts: the texts.
            max_tokens: padded tokens (rows × longest) that a batch may have.
        """
        encoded = self.tokenize(texts)
        predictions: dict[int, Prediction] = {}
        for rows in plan_batches([item.length for item in encoded], max_tokens=max_tokens):
            batch = self.run([encoded[row] for row in rows])
            predictions.update(zip(rows, batch, strict=True))
        return [predictions[row] for row in range(len(encoded))]


def plan_batches(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Group rows of like length, the longest first.

    Args:
        lengths: number of tokens of each row.
        max_tokens: padded tokens (rows × longest) that a batch may have; a longer row runs alone.

    Returns:
        Row indexes, batch by batch; each row once.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and (len(batches[-1]) + 1) * longest <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = lengths[row]
    return batches
