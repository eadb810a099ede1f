"""How much disk a run takes: checkpoints, the version, and the tokenized rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kovar.data.facts import DataFacts
from kovar.models.forward import FP32_BYTES
from kovar.models.language_size import trained_size
from kovar.models.size import LoraShape
from kovar.training.spec import TrainingSettings

MiB: Final = 1 << 20

VERSION_EXTRAS_BYTES: Final = 2 * MiB
"""Tokenizer, configuration, golden examples and answers: 1.0 MiB with MiniLM's tokenizer."""

TOKEN_BYTES: Final = 4
"""A token id in the tokenized rows is an int32."""

ROW_BYTES: Final = 20
"""Beside its tokens a row has its label and number, 8 bytes each, and an offset of 4."""

EVALUATION_TEXT_BYTES_PER_TOKEN: Final = 5
"""The evaluation split keeps its texts."""


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes on disk.

    Args:
        checkpoints: the newest ones, and one that is being written.
        version: the model's folder in the run and its copy among the registry's artifacts.
        tokenized: the tokenized rows in the cache; None where the rows are not known.
    """

    checkpoints: int
    version: int
    tokenized: int | None

    @property
    def total(self) -> int:
        """All of it, as far as it is known."""
        return self.checkpoints + self.version + (self.tokenized or 0)


def estimate_disk(
    config: Mapping[str, Any],
    settings: TrainingSettings,
    *,
    num_labels: int,
    data: DataFacts | None,
    lora: LoraShape | None = None,
    merges: bool = False,
    predicted_share: float = 0.0,
) -> DiskEstimate | None:
    """Estimate the disk of one run.

    Args:
        config: content of config.json.
        settings: how many checkpoints are kept.
        num_labels: classes.
        data: rows and tokens, where they are known.
        lora: trains adapters in place of all weights, and keeps them alone.
        merges: whether the adapters are registered merged into their base, too.
        predicted_share: share of the tokens that a language model predicts; 0 for a classifier.

    Returns:
        None when the architecture is not known.
    """
    size = trained_size(config, num_labels=num_labels, predicted_share=predicted_share)
    if size is None:
        return None
    weights = size.trainable(lora) * FP32_BYTES
    merged = size.total * FP32_BYTES + VERSION_EXTRAS_BYTES if merges else 0
    moments = 2 * size.trainable(lora) * FP32_BYTES
    tokenized = None
    if data is not None:
        rows = data.num_train + data.num_evaluation
        per_row = data.high_length * TOKEN_BYTES + ROW_BYTES
        texts = data.num_evaluation * data.high_length * EVALUATION_TEXT_BYTES_PER_TOKEN
        tokenized = round(rows * per_row + texts)
    return DiskEstimate(
        # The oldest goes only when the newest is whole.
        checkpoints=(settings.keep_checkpoints + 1) * (weights + moments),
        version=2 * (weights + VERSION_EXTRAS_BYTES + merged),
        tokenized=tokenized,
    )
