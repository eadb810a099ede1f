"""What the tasks of language models share: the loss over the tokens, and the sums of a scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.evaluation import perplexity
from kovar.training.tasks.task import Collated, Tally, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from kovar.data import Split, TokenizedDataset
    from kovar.data.language import LanguageBatch


class LanguageTask(Task):
    """Cross-entropy over the vocabulary, one target for each token that is learned."""

    metric = "loss"
    metrics = {"loss": "min", "perplexity": "min", "accuracy": "max"}  # noqa: RUF012

    def loss(
        self, outputs: Any, targets: torch.Tensor, *, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the cross-entropy in nats, summed over the targets.

        `outputs.logits` has shape (targets, vocabulary): the model computes no others.
        """
        from torch.nn.functional import cross_entropy

        logits = outputs.logits if outputs.logits.element_size() > 4 else outputs.logits.float()
        return cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)

    def tally(self, dataset: TokenizedDataset, split: Split, device: torch.device) -> Tally:
        """Begin with no token predicted."""
        return _Tally(self, device)


def as_collated(batch: LanguageBatch) -> Collated:
    """Return a batch as the engine takes it."""
    return Collated(batch.inputs, batch.targets, num_targets=len(batch.targets))


class _Tally(Tally):
    """Sums over all tokens that were predicted."""

    def __init__(self, task: Task, device: torch.device) -> None:
        import torch

        self._task = task
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)

    def add(self, outputs: Any, targets: torch.Tensor, rows: NDArray[np.int64]) -> None:
        self._loss += self._task.loss(outputs, targets)
        self._counts[0] += (outputs.logits.argmax(-1) == targets).sum()
        self._counts[1] += len(targets)

    def tensors(self) -> list[torch.Tensor]:
        return [self._loss, self._counts]

    def metrics(self) -> dict[str, float]:
        right, total = self._counts.tolist()
        loss = float(self._loss) / max(1, total)
        return {"loss": loss, "perplexity": perplexity(loss), "accuracy": right / max(1, total)}
