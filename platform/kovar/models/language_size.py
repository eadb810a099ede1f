"""How large a language model is: a decoder, or an encoder that guesses hidden tokens.

The counts are those of transformers' `AutoModelForCausalLM` and `AutoModelForMaskedLM`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kovar.models.head import head_of
from kovar.models.size import Linear, ModelSize, model_size


def language_model_size(config: Mapping[str, Any]) -> ModelSize | None:
    """Return the size of a model with its head onto the vocabulary.

    Args:
        config: content of config.json; fields that it lacks have transformers' default.

    Returns:
        None where the architecture is not known.
    """
    size = model_size(config)
    if size is None or size.decoder:
        return size
    kind = size.model_type
    # The table's rows are what the last matrix multiplies with.
    width = size.embedding_width
    is_modern = kind == "modernbert"
    dense = Linear(
        "head.dense", size.hidden, width, bias=not is_modern or bool(config.get("classifier_bias"))
    )
    has_bias = not is_modern or config.get("decoder_bias") is not False
    return replace(
        size,
        head=(dense,),
        # ModernBERT's first layer lacks a norm of the same size.
        head_norms=size.missing_norms or 2 * width,
        output=Linear("decoder", width, size.vocabulary, has_bias),
        tied=config.get("tie_word_embeddings") is not False,
        new_head=head_of(config) != "masked-lm",
    )


def trained_size(
    config: Mapping[str, Any], *, num_labels: int, predicted_share: float
) -> ModelSize | None:
    """Return the size of a model with the head that it is trained with.

    Args:
        config: content of config.json.
        num_labels: classes of a classification head.
        predicted_share: share of the tokens that a language model predicts; 0 for a classifier.
    """
    if predicted_share:
        return language_model_size(config)
    return model_size(config, num_labels=num_labels)
