"""What the tasks of language models share: the loss over the tokens, and the sums of a scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.data.layouts.causal_text import FORMS
from kovar.evaluation import language_metrics, perplexity
from kovar.training.tasks.task import NUM_GOLDEN, Answers, Collated, Examined, Tally, Task
from kovar.training.tasks.text_classification import at_least_fp32

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from kovar.data import Split, TokenizedDataset
    from kovar.data.language import LanguageBatch
    from kovar.models import BaseModelFiles
    from kovar.registry import Signature


class LanguageTask(Task):
    """Cross-entropy over the vocabulary, one target for each token that is learned."""

    metric = "loss"
    metrics = {"loss": "min", "perplexity": "min", "token_accuracy": "max"}  # noqa: RUF012

    def loss(
        self, outputs: Any, targets: torch.Tensor, *, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the cross-entropy in nats, summed over the targets.

        `outputs.logits` has shape (targets, vocabulary): the model computes no others.
        """
        from torch.nn.functional import cross_entropy

        logits = at_least_fp32(outputs.logits)
        return cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)

    def tally(self, dataset: TokenizedDataset, split: Split, device: torch.device) -> Tally:
        """Begin with no token predicted."""
        return _Tally(len(split), device)

    def save_model(
        self, model: PreTrainedModel, base: BaseModelFiles, out_dir: Path, *, max_length: int
    ) -> None:
        """Write the model with its head; tied weights once."""
        from kovar.models import save_language_model

        save_language_model(model, base, out_dir, max_length=max_length)

    def signature(self, labels: tuple[str, ...], *, max_length: int) -> Signature:
        """Return a text in and its mean loss out."""
        from kovar.registry import Signature, TensorFacts

        return Signature(
            task=self.name,
            inputs=(TensorFacts(name="text", datatype="BYTES", shape=(-1,)),),
            outputs=(TensorFacts(name="loss", datatype="FP32", shape=(-1,)),),
            max_length=max_length,
        )

    def examine(
        self, runtime: Any, split: Split, *, progress: Callable[[int, int], None] | None = None
    ) -> Examined:
        """Score every text; keep the losses of the first ones as examples."""
        import numpy as np

        from kovar.registry import GoldenNumbers, NumberedExample

        texts, form = split.texts, FORMS[split.constants.get("form", 0)]
        found = runtime.score(texts, form=form, progress=progress)
        sums = np.array([one.loss_sum for one in found], dtype=np.float64)
        counts = np.array([one.num_tokens for one in found], dtype=np.int64)
        right = sum(one.num_right for one in found)
        metrics = language_metrics(sums, counts).to_json()
        first = texts[:NUM_GOLDEN]
        examples = tuple(
            NumberedExample(text=text, form=form, numbers=(one.loss,))
            for text, one in zip(first, runtime.score(first, form=form), strict=True)
        )
        return Examined(
            metrics | {"token_accuracy": right / int(counts.sum())},
            GoldenNumbers(meaning="losses of texts, in nats a token", examples=examples),
        )


def as_collated(batch: LanguageBatch, rows: NDArray[np.int64]) -> Collated:
    """Return a batch of these rows as the engine takes it."""
    return Collated(
        batch.inputs,
        batch.targets,
        num_targets=len(batch.targets),
        target_rows=rows[batch.rows],
    )


class _Tally(Tally):
    """Sums over all tokens that were predicted, and over those of each row."""

    def __init__(self, num_rows: int, device: torch.device) -> None:
        import torch

        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._counts = torch.zeros(2, num_rows, dtype=torch.int64, device=device)
        self._losses = torch.zeros(num_rows, device=device)

    def add(self, outputs: Any, targets: torch.Tensor, rows: NDArray[np.int64]) -> None:
        import torch
        from torch.nn.functional import cross_entropy

        # Once for both sums: with a large vocabulary a pass over the logits costs much memory.
        losses = cross_entropy(at_least_fp32(outputs.logits), targets, reduction="none")
        self._loss += losses.double().sum()
        where = torch.from_numpy(rows).to(targets.device)
        right = outputs.logits.argmax(-1) == targets
        self._counts[0].index_add_(0, where, right.long())
        self._counts[1].index_add_(0, where, torch.ones_like(where))
        self._losses.index_add_(0, where, losses.float())

    def tensors(self) -> list[torch.Tensor]:
        return [self._loss, self._counts, self._losses]

    def answers(self) -> Answers:
        right, total = self._counts.cpu().numpy()
        return {"loss": self._losses.cpu().numpy(), "num_tokens": total, "num_right": right}

    def metrics(self) -> dict[str, float]:
        right, total = self._counts.sum(-1).tolist()
        loss = float(self._loss) / max(1, total)
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "token_accuracy": right / max(1, total),
        }
