"""The next token: fine-tuning on answers and conversations, or pre-training on texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovar.data.language import collate_causal
from kovar.training.tasks.language import LanguageTask, as_collated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kovar.data import Split, TokenizedDataset
    from kovar.models import BaseModelFiles, BuiltModel
    from kovar.training.tasks.task import Collated


class CausalLM(LanguageTask):
    """Cross-entropy of each token that is learned, given those before it in its document."""

    name = "causal-lm"
    layout = "causal-text"
    predicted_share = 1.0
    learns_to_write = True

    def build_model(
        self, base: BaseModelFiles, dataset: TokenizedDataset, *, dropout: float | None = None
    ) -> BuiltModel:
        """Load the base with its language-model head."""
        from kovar.models import build_language_model

        return build_language_model(base, head="causal-lm", dropout=dropout)

    def collate(
        self, split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int, seed: int
    ) -> Collated:
        """Return token ids of shape (rows, length), and a target for each token that is learned."""
        batch = collate_causal(split, rows, length, pad_id=pad_id)
        return as_collated(batch, rows)
