"""One label for a whole text, or for two texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.data import collate
from kovar.data.layouts import SECOND, segments
from kovar.evaluation import classification_metrics
from kovar.training.tasks.task import NUM_GOLDEN, Answers, Collated, Examined, Tally, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from kovar.data import Split, TokenizedDataset
    from kovar.inference import Runtime, Text
    from kovar.models import BaseModelFiles, BuiltModel
    from kovar.registry import GoldenExamples, Signature


class TextClassification(Task):
    """Cross-entropy over the labels, one target a row."""

    name = "text-classification"
    layout = "text-label"
    metric = "accuracy"
    metrics = {"accuracy": "max", "macro_f1": "max", "loss": "min"}  # noqa: RUF012

    def build_model(
        self, base: BaseModelFiles, dataset: TokenizedDataset, *, dropout: float | None = None
    ) -> BuiltModel:
        """Put a classification head with the data set's labels on the base."""
        from kovar.models import build_for_training

        return build_for_training(base, labels=dataset.labels, dropout=dropout)

    def num_targets(self, split: Split, rows: NDArray[np.int64]) -> int:
        """Return the number of rows."""
        return len(rows)

    def collate(
        self, split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int, seed: int
    ) -> Collated:
        """Return token ids and mask of shape (rows, length), targets of shape (rows)."""
        inputs = collate_texts(split, rows, length, pad_id=pad_id)
        return Collated(inputs, split.labels[rows], num_targets=len(rows))

    def loss(
        self, outputs: Any, targets: torch.Tensor, *, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the cross-entropy in nats, summed over the rows."""
        from torch.nn.functional import cross_entropy

        logits = at_least_fp32(outputs.logits)
        return cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)

    def tally(self, dataset: TokenizedDataset, split: Split, device: torch.device) -> Tally:
        """Begin with no row predicted."""
        return _Tally(self, dataset.labels, split, device)

    def signature(self, labels: tuple[str, ...], *, max_length: int) -> Signature:
        """Return a text in, its label and the probability of every label out."""
        return classifier_signature(self.name, labels, max_length=max_length)

    def examine(
        self, runtime: Any, split: Split, *, progress: Callable[[int, int], None] | None = None
    ) -> Examined:
        """Predict every row; keep the first answers as examples, and the label of every row."""
        from kovar.evaluation import evaluate
        from kovar.registry import DatasetPredictions, rows_digest

        labels, texts = tuple(runtime.labels), texts_of(split)
        found = evaluate(runtime, texts, split.labels, progress=progress)
        true = split.labels.tolist()
        rows = ((text, labels[index]) for text, index in zip(texts, true, strict=True))
        predictions = DatasetPredictions(
            rows=rows_digest(rows),
            labels=labels,
            true=tuple(true),
            predicted=tuple(found.predicted.tolist()),
        )
        golden = golden_of(runtime, texts[:NUM_GOLDEN])
        return Examined(found.metrics.to_json(), golden, predictions)


class _Tally(Tally):
    """The predicted label of each row, and the loss; rows of other ranks stay zero."""

    def __init__(
        self, task: Task, labels: tuple[str, ...], split: Split, device: torch.device
    ) -> None:
        import torch

        self._task, self._labels, self._split = task, labels, split
        self._predicted = torch.zeros(len(split.labels), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._losses = torch.zeros(len(split.labels), device=device)

    def add(self, outputs: Any, targets: torch.Tensor, rows: NDArray[np.int64]) -> None:
        import torch
        from torch.nn.functional import cross_entropy

        where = torch.from_numpy(rows).to(targets.device)
        self._loss += self._task.loss(outputs, targets)
        self._predicted[where] = outputs.logits.argmax(-1)
        labels = torch.from_numpy(self._split.labels[rows]).to(targets.device, torch.int64)
        losses = cross_entropy(at_least_fp32(outputs.logits), labels, reduction="none")
        self._losses[where] = losses.float()

    def tensors(self) -> list[torch.Tensor]:
        return [self._predicted, self._loss, self._losses]

    def answers(self) -> Answers:
        return {
            "true": self._split.labels,
            "predicted": self._predicted.cpu().numpy(),
            "loss": self._losses.cpu().numpy(),
        }

    def metrics(self) -> dict[str, float]:
        found = classification_metrics(
            self._split.labels, self._predicted.cpu().numpy(), labels=self._labels
        )
        return {
            "accuracy": found.accuracy,
            "macro_f1": found.macro_f1,
            "loss": float(self._loss) / len(self._split),
        }


def collate_texts(
    split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int
) -> dict[str, NDArray[Any]]:
    """Return what a model reads of texts or of pairs, each array of shape (rows, length)."""
    inputs: dict[str, NDArray[Any]] = {**collate(split, rows, length, pad_id)}
    if split.has(SECOND):
        second = split.column(SECOND)[rows]
        inputs["token_type_ids"] = segments(second, split.lengths[rows], length)
    return inputs


def at_least_fp32(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in which a loss may be summed."""
    return logits if logits.element_size() > 4 else logits.float()


def texts_of(split: Split) -> list[Text]:
    """Return the texts of all rows of the evaluation split; of a pair, both."""
    if not split.has("text_pair"):
        return list(split.texts)
    return list(zip(split.texts, split.kept("text_pair"), strict=True))


def classifier_signature(task: str, labels: tuple[str, ...], *, max_length: int) -> Signature:
    """Return the signature of a version that scores labels of texts."""
    from kovar.registry import Signature, TensorFacts

    return Signature(
        task=task,
        inputs=(TensorFacts(name="text", datatype="BYTES", shape=(-1,)),),
        outputs=(
            TensorFacts(name="label", datatype="BYTES", shape=(-1,)),
            TensorFacts(name="scores", datatype="FP32", shape=(-1, len(labels))),
        ),
        labels=labels,
        max_length=max_length,
    )


def golden_of(runtime: Runtime, texts: Sequence[Text]) -> GoldenExamples:
    """Return what a runtime answers to a few texts."""
    from kovar.registry import GoldenExample, GoldenExamples

    pairs = [(text, None) if isinstance(text, str) else text for text in texts]
    examples = tuple(
        GoldenExample(text=first, text_pair=second, label=one.label, scores=one.scores)
        for (first, second), one in zip(pairs, runtime.predict(texts), strict=True)
    )
    return GoldenExamples(labels=tuple(runtime.labels), examples=examples)
