"""A tag for every word: named entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.data import collate
from kovar.data.layouts import NO_TAG, NUM_WORDS, WORD_TAGS
from kovar.training.tasks.task import NUM_GOLDEN, Answers, Collated, Examined, Tally, Task
from kovar.training.tasks.text_classification import at_least_fp32

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from kovar.data import Split, TokenizedDataset
    from kovar.models import BaseModelFiles, BuiltModel
    from kovar.registry import Signature


class TokenClassification(Task):
    """Cross-entropy over the tags at the first token of every word."""

    name = "token-classification"
    layout = "tagged-words"
    metric = "f1"
    metrics = {"f1": "max", "precision": "max", "recall": "max", "accuracy": "max", "loss": "min"}  # noqa: RUF012

    def build_model(
        self, base: BaseModelFiles, dataset: TokenizedDataset, *, dropout: float | None = None
    ) -> BuiltModel:
        """Put a head on the base that scores the data set's tags for every token."""
        from kovar.models import build_for_training

        return build_for_training(
            base, labels=dataset.labels, dropout=dropout, head="token-classification"
        )

    def num_targets(self, split: Split, rows: NDArray[np.int64]) -> int:
        """Return the number of words."""
        return int(split.column(NUM_WORDS)[rows].sum())

    def collate(
        self, split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int, seed: int
    ) -> Collated:
        """Return token ids, mask and targets, each of shape (rows, length)."""
        import numpy as np

        inputs: dict[str, NDArray[Any]] = {**collate(split, rows, length, pad_id)}
        targets = np.full((len(rows), length), NO_TAG, dtype=np.int64)
        for place, row in enumerate(rows.tolist()):
            tags = split.values(WORD_TAGS, row)
            targets[place, : len(tags)] = tags
        num_targets = self.num_targets(split, rows)
        return Collated(inputs, targets, num_targets=num_targets, targets_per_token=True)

    def loss(
        self, outputs: Any, targets: torch.Tensor, *, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the cross-entropy in nats, summed over the words."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(
            at_least_fp32(outputs.logits).flatten(0, 1),
            targets.flatten(),
            ignore_index=NO_TAG,
            reduction="sum",
            label_smoothing=label_smoothing,
        )

    def tally(self, dataset: TokenizedDataset, split: Split, device: torch.device) -> Tally:
        """Begin with no word tagged."""
        return _Tally(self, dataset.labels, split, device)

    def signature(self, labels: tuple[str, ...], *, max_length: int) -> Signature:
        """Return words in, and their tags out."""
        from kovar.registry import Signature, TensorFacts

        return Signature(
            task=self.name,
            inputs=(TensorFacts(name="words", datatype="BYTES", shape=(-1, -1)),),
            outputs=(TensorFacts(name="tags", datatype="BYTES", shape=(-1, -1)),),
            labels=labels,
            max_length=max_length,
        )

    def examine(
        self, runtime: Any, split: Split, *, progress: Callable[[int, int], None] | None = None
    ) -> Examined:
        """Tag every row; keep the first answers as examples. Words that are cut off are `O`."""
        from kovar.evaluation import entity_intervals, entity_metrics, tag_texts
        from kovar.registry import GoldenNumbers, NumberedExample

        rows, true = split.kept("tokens"), split.kept("tags")
        predicted = tag_texts(runtime, rows, progress=progress)
        metrics = entity_metrics(true, predicted).to_json()
        intervals = entity_intervals(true, predicted)
        metrics["intervals"] = {name: list(interval) for name, interval in intervals.items()}
        examples = tuple(
            NumberedExample(words=tuple(words), numbers=tagging.numbers)
            for words, tagging in zip(rows, runtime.tag(rows[:NUM_GOLDEN]), strict=False)
        )
        return Examined(metrics, GoldenNumbers(meaning="probabilities of tags", examples=examples))


class _Tally(Tally):
    """The predicted tag of each word, and the loss; words of other ranks stay zero."""

    def __init__(
        self, task: Task, labels: tuple[str, ...], split: Split, device: torch.device
    ) -> None:
        import numpy as np
        import torch

        self._task, self._labels, self._split = task, labels, split
        self._ends = np.cumsum(split.column(NUM_WORDS), dtype=np.int64)
        num_words = int(self._ends[-1])
        self._predicted = torch.zeros(num_words, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._losses = torch.zeros(len(split), device=device)

    def add(self, outputs: Any, targets: torch.Tensor, rows: NDArray[np.int64]) -> None:
        import numpy as np
        import torch
        from torch.nn.functional import cross_entropy

        self._loss += self._task.loss(outputs, targets)
        losses = cross_entropy(
            at_least_fp32(outputs.logits).transpose(1, 2),
            targets,
            ignore_index=NO_TAG,
            reduction="none",
        )
        self._losses[torch.from_numpy(rows).to(targets.device)] = losses.sum(-1).float()
        counts = self._split.column(NUM_WORDS)[rows]
        starts = self._ends[rows] - counts
        words = np.concatenate(
            [np.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
        )
        where = torch.from_numpy(words).to(targets.device)
        self._predicted[where] = outputs.logits.argmax(-1)[targets != NO_TAG]

    def tensors(self) -> list[torch.Tensor]:
        return [self._predicted, self._loss, self._losses]

    def _tags(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return the true and the predicted tags of each row."""
        import numpy as np

        def named(tags: NDArray[np.int64]) -> list[str]:
            return [self._labels[index] for index in tags.tolist()]

        of_rows = (self._split.values(WORD_TAGS, row) for row in range(len(self._split)))
        true = [named(tags[tags != NO_TAG]) for tags in of_rows]
        predicted = np.split(self._predicted.cpu().numpy(), self._ends[:-1])
        return true, [named(tags) for tags in predicted]

    def answers(self) -> Answers:
        import numpy as np

        from kovar.evaluation.entities import EntityCounts

        true, predicted = self._tags()
        right, found, there = EntityCounts(true, predicted).per_sentence
        agree = [sum(map(str.__eq__, a, b)) for a, b in zip(true, predicted, strict=True)]
        return {
            "num_right": right,
            "num_predicted": found,
            "num_true": there,
            "words_right": np.array(agree),
            "num_words": self._split.column(NUM_WORDS),
            "loss": self._losses.cpu().numpy(),
        }

    def metrics(self) -> dict[str, float]:
        from kovar.evaluation import entity_metrics

        found = entity_metrics(*self._tags())
        return {
            "f1": found.f1,
            "precision": found.precision,
            "recall": found.recall,
            "accuracy": found.accuracy,
            "loss": float(self._loss) / max(1, len(self._predicted)),
        }
