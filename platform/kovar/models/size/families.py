"""The architectures whose size is known, with the defaults of their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kovar.models.size.decoders import gpt2_size, llama_size
from kovar.models.size.dimensions import ModelSize
from kovar.models.size.encoders import albert_size, bert_size, distilbert_size, modernbert_size

Config = Mapping[str, Any]

_BERT: Final[Config] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_LLAMA: Final[Config] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "tie_word_embeddings": False,
}
_QWEN: Final[Config] = {
    **_LLAMA,
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
}

_Build = Callable[[Config, int | None], ModelSize]

# The defaults are those of transformers 5; config.json may leave them out.
FAMILIES: Final[dict[str, tuple[_Build, Config]]] = {
    "albert": (
        albert_size,
        {
            "vocab_size": 30000,
            "embedding_size": 128,
            "hidden_size": 4096,
            "num_hidden_layers": 12,
            "num_hidden_groups": 1,
            "inner_group_num": 1,
            "num_attention_heads": 64,
            "intermediate_size": 16384,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
    ),
    "bert": (bert_size, _BERT),
    "camembert": (bert_size, _BERT),
    "distilbert": (
        distilbert_size,
        {
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "dim": 768,
            "hidden_dim": 3072,
            "n_layers": 6,
            "n_heads": 12,
        },
    ),
    "electra": (
        bert_size,
        {
            **_BERT,
            "embedding_size": 128,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
    ),
    "ernie": (bert_size, {**_BERT, "task_type_vocab_size": 3}),
    "gemma": (
        llama_size,
        {
            "vocab_size": 256000,
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "head_dim": 256,
            "intermediate_size": 24576,
            "tie_word_embeddings": True,
        },
    ),
    "gpt2": (
        gpt2_size,
        {
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "tie_word_embeddings": True,
        },
    ),
    "llama": (llama_size, _LLAMA),
    "mistral": (llama_size, {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8}),
    "modernbert": (
        modernbert_size,
        {
            "vocab_size": 50368,
            "hidden_size": 768,
            "intermediate_size": 1152,
            "num_hidden_layers": 22,
            "num_attention_heads": 12,
            "norm_bias": False,
            "attention_bias": False,
            "mlp_bias": False,
            "classifier_bias": False,
        },
    ),
    "olmo2": (llama_size, {**_LLAMA, "vocab_size": 50304}),
    "phi3": (
        llama_size,
        {**_LLAMA, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192},
    ),
    "qwen2": (llama_size, _QWEN),
    "qwen3": (llama_size, {**_QWEN, "head_dim": 128}),
    "roberta": (bert_size, {**_BERT, "vocab_size": 50265}),
    "smollm3": (
        llama_size,
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
        },
    ),
    "xlm-roberta": (bert_size, _BERT),
}


def model_size(config: Config, *, num_labels: int | None = None) -> ModelSize | None:
    """Return the size of a model, or None where the architecture is not known.

    Args:
        config: content of config.json; fields that it lacks have transformers' default.
        num_labels: classes of a classification head; None means the model as its file has it: a
            language-model head on a decoder, none on an encoder.
    """
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        return None
    build, defaults = family
    given = {name: value for name, value in config.items() if value is not None}
    return build({**defaults, **given, "model_type": model_type}, num_labels)
