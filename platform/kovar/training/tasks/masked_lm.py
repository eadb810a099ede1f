"""Hidden tokens: pre-training an encoder further on texts without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovar.data.language import MASKED_SHARE, collate_masked
from kovar.training.tasks.language import LanguageTask, as_collated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kovar.data import Split, TokenizedDataset
    from kovar.models import BaseModelFiles, BuiltModel
    from kovar.training.tasks.task import Collated


class MaskedLM(LanguageTask):
    """Cross-entropy of 15 % of the tokens, which are hidden anew in every epoch."""

    name = "masked-lm"
    layout = "masked-text"
    predicted_share = MASKED_SHARE

    def build_model(
        self, base: BaseModelFiles, dataset: TokenizedDataset, *, dropout: float | None = None
    ) -> BuiltModel:
        """Load the base with a head onto its vocabulary."""
        from kovar.models import build_language_model

        return build_language_model(base, head="masked-lm", dropout=dropout)

    def collate(
        self, split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int, seed: int
    ) -> Collated:
        """Return token ids and mask of shape (rows, length), and a target for each hidden token."""
        batch = collate_masked(split, rows, length, pad_id=pad_id, seed=seed)
        return as_collated(batch, rows)
