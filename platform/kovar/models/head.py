"""What a model's last layers answer, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

Head = Literal["sequence-classification", "token-classification", "causal-lm", "masked-lm"]

_ENDINGS: Final[Mapping[str, Head]] = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForMaskedLM": "masked-lm",
}


def head_of(config: Mapping[str, Any]) -> Head | None:
    """Return the head that a folder was saved with; None for a bare encoder.

    Args:
        config: content of config.json.
    """
    for name in config.get("architectures") or ():
        for ending, head in _ENDINGS.items():
            if name.endswith(ending):
                return head
    return None


def model_class(head: Head) -> Any:
    """Return the class of transformers that builds models with a head."""
    import transformers

    return {
        "sequence-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "causal-lm": transformers.AutoModelForCausalLM,
        "masked-lm": transformers.AutoModelForMaskedLM,
    }[head]
