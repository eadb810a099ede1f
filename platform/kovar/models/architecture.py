"""The encoders that Kovar can fine-tune, as transformers names them in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Architecture:
    """What differs between encoders.

    Args:
        counts_from_padding: positions start after the padding token's id, so that many are lost.
        dropouts: the fields of the configuration that hold dropout probabilities.
    """

    counts_from_padding: bool = False
    dropouts: tuple[str, ...] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
    )

    def max_positions(self, config: dict[str, Any]) -> int:
        """Return the longest sequence in tokens that a configuration allows."""
        positions = int(config["max_position_embeddings"])
        lost = int(config.get("pad_token_id", 1)) + 1 if self.counts_from_padding else 0
        return positions - lost


_ROBERTA: Final = Architecture(counts_from_padding=True)

# Each has a sequence-classification head and scaled-dot-product attention in transformers.
ARCHITECTURES: Final[dict[str, Architecture]] = {
    "albert": Architecture(
        dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
    ),
    "bert": Architecture(),
    "camembert": _ROBERTA,
    "distilbert": Architecture(dropouts=("dropout", "attention_dropout", "seq_classif_dropout")),
    "electra": Architecture(),
    "ernie": Architecture(),
    "modernbert": Architecture(
        dropouts=("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout")
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
