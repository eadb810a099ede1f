"""Configurations of models on the hub that many start from, so that a plan downloads nothing.

They are the models' own config.json, as far as their size depends on it; the tests hold them
against the published numbers of parameters. A model in the hub's cache is read from there instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


def _decoder(
    kind: str,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    inner: int,
    vocabulary: int,
    *,
    tied: bool = False,
) -> Mapping[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "FacebookAI/roberta-base": {
        "model_type": "roberta",
        "architectures": ["RobertaForMaskedLM"],
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
    "Qwen/Qwen2.5-0.5B": _decoder("qwen2", 896, 24, 14, 2, 4864, 151936, tied=True),
    "Qwen/Qwen2.5-1.5B": _decoder("qwen2", 1536, 28, 12, 2, 8960, 151936, tied=True),
    "Qwen/Qwen2.5-7B": _decoder("qwen2", 3584, 28, 28, 4, 18944, 152064),
    "google-bert/bert-base-uncased": {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
    },
    "meta-llama/Llama-3.1-70B": _decoder("llama", 8192, 80, 64, 8, 28672, 128256),
    "meta-llama/Llama-3.1-8B": _decoder("llama", 4096, 32, 32, 8, 14336, 128256),
    "meta-llama/Llama-3.2-1B": _decoder("llama", 2048, 16, 32, 8, 8192, 128256, tied=True),
    "meta-llama/Llama-3.2-3B": _decoder("llama", 3072, 28, 24, 8, 8192, 128256, tied=True),
    "mistralai/Mistral-7B-v0.3": _decoder("mistral", 4096, 32, 32, 8, 14336, 32768),
    "openai-community/gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
}


def published_config(name: str) -> Mapping[str, Any] | None:
    """Return what is known of a model on the hub; None for one that is not listed.

    Args:
        name: organization and model, with or without `@revision`; one that was tuned to follow
            instructions has its base's configuration.
    """
    base = name.partition("@")[0].removesuffix("-Instruct")
    return _MODELS.get(base)
