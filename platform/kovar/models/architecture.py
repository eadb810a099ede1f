"""The models that Kovar can fine-tune, as transformers names them in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Architecture:
    """What differs between models.

    Args:
        counts_from_padding: positions start after the padding token's id, so that many are lost.
        dropouts: the fields of the configuration that hold dropout probabilities.
        is_decoder: whether a token sees only those before it, and the model writes text.
        positions: the field of the configuration that holds the number of positions.
    """

    counts_from_padding: bool = False
    dropouts: tuple[str, ...] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
    )
    is_decoder: bool = False
    positions: str = "max_position_embeddings"

    def max_positions(self, config: dict[str, Any]) -> int:
        """Return the longest sequence in tokens that a configuration allows."""
        positions = int(config[self.positions])
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

_LLAMA: Final = Architecture(dropouts=("attention_dropout",), is_decoder=True)

# Each has a language-model head and, in transformers, scaled-dot-product attention that keeps
# documents of one row apart where their positions start again.
DECODERS: Final[dict[str, Architecture]] = {
    "gpt2": Architecture(
        dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        is_decoder=True,
        positions="n_positions",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "olmo2": _LLAMA,
    "phi3": Architecture(
        dropouts=("resid_pdrop", "embd_pdrop", "attention_dropout"), is_decoder=True
    ),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
}


def find_architecture(model_type: str) -> Architecture | None:
    """Return what is known of a kind of model, None for an unknown one."""
    return ARCHITECTURES.get(model_type) or DECODERS.get(model_type)
