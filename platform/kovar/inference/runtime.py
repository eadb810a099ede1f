"""What executes a version: texts in, predictions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RuntimeName = Literal["auto", "torch", "onnx", "openvino"]
RUNTIMES = tuple(name for name in get_args(RuntimeName) if name != "auto")

RuntimePrecision = Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"]
"""Number format that a runtime is asked for; int8 is one of exports alone."""

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


@dataclass(frozen=True, slots=True)
class Attribution:
    """How much each token of one text spoke for the predicted label.

    Attributes:
        prediction: the answer that is explained.
        weights: one for each token id of the row. They sum to the difference that the text makes to
            the log-probability of the label, against padding in its place: a positive one speaks
            for the label, a negative one against it.
    """

    prediction: Prediction
    weights: tuple[float, ...]


class Runtime(Protocol):
    """One loaded version on one chip at one precision.

    Attributes:
        name: short name, for example `torch`.
        labels: the labels in the order of the model's outputs.
        max_length: tokens that one text may have; longer texts are truncated.
        precision: the precision that it really runs at, for example `bf16`.
        any_labels: whether a text has any number of labels, each with a probability of its own.
        reason: why this runtime and precision, in a sentence.
        left_out: what could have been taken instead and failed, such as `onnx fp32`.
        vocabulary_size: token ids are below this.
        embedding_size: numbers of one text's embedding.
        length_step: rows of a batch are padded to a multiple of this.
    """

    name: str
    labels: tuple[str, ...]
    max_length: int
    precision: str
    any_labels: bool
    reason: str = ""
    left_out: tuple[str, ...] = ()
    vocabulary_size: int
    embedding_size: int
    length_step: int = 1

    def tokenize(self, texts: Sequence[Text]) -> list[Encoded]:
        """Turn texts into token ids. May be called from any thread."""
        ...

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        """Predict one batch, padded to its longest row. One caller at a time.

        Raises:
            FloatingPointError: the model's output for a row is not finite.
        """
        ...

    def scores(self, batch: Sequence[Encoded]) -> NDArray[np.float32]:
        """Return the probability of every label, shape (rows, labels); see `run`."""
        import numpy as np

        answers = self.run(batch)
        return np.array([[one.scores[label] for label in self.labels] for one in answers], "f4")

    def embed(self, batch: Sequence[Encoded]) -> NDArray[np.float32]:
        """Return the mean of each text's last hidden states, of length 1, shape (rows, size).

        One caller at a time.

        Raises:
            FloatingPointError: as `run`.
        """
        ...

    def attribute(self, batch: Sequence[Encoded]) -> list[Attribution]:
        """Tell how much each token spoke for the label: integrated gradients, through torch.

        Slow: some dozens of passes a text. One caller at a time.

        Raises:
            FloatingPointError: as `run`.
        """
        ...

    def spans(self, text: Text) -> list[tuple[str, int, int]]:
        """Return each token, its first character in its text and the one after its last.

        In the order of the token ids; a special token is nowhere: its places are equal. May be
        called from any thread.
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
