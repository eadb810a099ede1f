"""Any number of labels for a whole text, or for two texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.training.tasks.task import NUM_GOLDEN, Answers, Collated, Examined, Tally, Task
from kovar.training.tasks.text_classification import (
    at_least_fp32,
    classifier_signature,
    collate_texts,
    golden_of,
    texts_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from kovar.data import Split, TokenizedDataset
    from kovar.models import BaseModelFiles, BuiltModel
    from kovar.registry import Signature


class MultilabelClassification(Task):
    """Binary cross-entropy of each label for itself: a target for every row and label."""

    name = "multilabel-classification"
    layout = "text-labels"
    metric = "micro_f1"
    metrics = {"micro_f1": "max", "macro_f1": "max", "accuracy": "max", "loss": "min"}  # noqa: RUF012

    def build_model(
        self, base: BaseModelFiles, dataset: TokenizedDataset, *, dropout: float | None = None
    ) -> BuiltModel:
        """Put a classification head with the data set's labels on the base."""
        from kovar.models import build_for_training

        return build_for_training(base, labels=dataset.labels, dropout=dropout, any_labels=True)

    def num_targets(self, split: Split, rows: NDArray[np.int64]) -> int:
        """Return the number of pairs of row and label: the loss is a mean over them."""
        return len(rows) * split.constants["num_labels"]

    def collate(
        self, split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int, seed: int
    ) -> Collated:
        """Return token ids and mask of shape (rows, length), targets of shape (rows, labels)."""
        import numpy as np

        inputs = collate_texts(split, rows, length, pad_id=pad_id)
        targets = true_labels(split, rows).astype(np.float32)
        return Collated(inputs, targets, num_targets=targets.size)

    def loss(
        self, outputs: Any, targets: torch.Tensor, *, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the binary cross-entropy in nats, summed over rows and labels.

        Smoothing spreads its share over both answers: 1 becomes 1 − s/2, and 0 becomes s/2.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = at_least_fp32(outputs.logits)
        wanted = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return binary_cross_entropy_with_logits(logits, wanted, reduction="sum")

    def tally(self, dataset: TokenizedDataset, split: Split, device: torch.device) -> Tally:
        """Begin with no row predicted."""
        return _Tally(self, dataset.labels, split, device)

    def signature(self, labels: tuple[str, ...], *, max_length: int) -> Signature:
        """Return a text in, its likeliest label and the probability of every label out."""
        return classifier_signature(self.name, labels, max_length=max_length)

    def examine(
        self, runtime: Any, split: Split, *, progress: Callable[[int, int], None] | None = None
    ) -> Examined:
        """Score every row; keep the first answers as examples."""
        import numpy as np

        from kovar.evaluation import multilabel_intervals, multilabel_metrics, score_texts

        texts, true = texts_of(split), true_labels(split, np.arange(len(split)))
        scores = score_texts(runtime, texts, progress=progress)
        metrics = multilabel_metrics(true, scores, labels=runtime.labels).to_json()
        intervals = multilabel_intervals(true, scores)
        metrics["intervals"] = {name: list(interval) for name, interval in intervals.items()}
        return Examined(metrics, golden_of(runtime, texts[:NUM_GOLDEN]))


def true_labels(split: Split, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether rows have labels, shape (rows, labels)."""
    import numpy as np

    found = np.zeros((len(rows), split.constants["num_labels"]), dtype=np.bool_)
    for place, row in enumerate(rows.tolist()):
        found[place, split.values("label", row)] = True
    return found


class _Tally(Tally):
    """The scores of each row, and the loss; rows of other ranks stay zero."""

    def __init__(
        self, task: Task, labels: tuple[str, ...], split: Split, device: torch.device
    ) -> None:
        import torch

        self._task, self._labels, self._split = task, labels, split
        self._scores = torch.zeros(len(split), len(labels), device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._losses = torch.zeros(len(split), device=device)

    def add(self, outputs: Any, targets: torch.Tensor, rows: NDArray[np.int64]) -> None:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        self._loss += self._task.loss(outputs, targets)
        where = torch.from_numpy(rows).to(targets.device)
        logits = outputs.logits.float()
        self._scores[where] = logits.sigmoid()
        losses = binary_cross_entropy_with_logits(logits, targets.float(), reduction="none")
        self._losses[where] = losses.sum(-1)

    def tensors(self) -> list[torch.Tensor]:
        return [self._scores, self._loss, self._losses]

    def answers(self) -> Answers:
        import numpy as np

        from kovar.evaluation.multilabel import THRESHOLD

        def chosen(table: NDArray[np.bool_]) -> list[list[int]]:
            return [np.flatnonzero(row).tolist() for row in table]

        return {
            "true": chosen(true_labels(self._split, np.arange(len(self._split)))),
            "predicted": chosen(self._scores.cpu().numpy() >= THRESHOLD),
            "loss": self._losses.cpu().numpy(),
        }

    def metrics(self) -> dict[str, float]:
        import numpy as np

        from kovar.evaluation import multilabel_metrics

        true = true_labels(self._split, np.arange(len(self._split)))
        scores = self._scores.cpu().numpy().astype(np.float64)
        found = multilabel_metrics(true, scores, labels=self._labels)
        return {
            "micro_f1": found.micro_f1,
            "macro_f1": found.macro_f1,
            "accuracy": found.accuracy,
            "loss": float(self._loss) / true.size,
        }
