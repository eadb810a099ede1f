"""Decoders: their dimensions from config.json, with a language-model head or a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kovar.models.size.dimensions import ModelSize
from kovar.models.size.linear import Linear


def llama_size(config: Mapping[str, Any], num_labels: int | None) -> ModelSize:
    """Llama and its kin: Mistral, Qwen2, Qwen3, SmolLM3, OLMo 2, Phi-3, Gemma."""
    kind, hidden, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", hidden // heads)
    biased = ("llama", "qwen3", "gemma", "olmo2", "smollm3")
    bias = kind in biased and bool(config.get("attention_bias", False))
    qkv_bias = bias or kind == "qwen2"
    feed = kind in ("llama", "smollm3") and bool(config.get("mlp_bias", False))
    queries, keys = heads * head_dim, kv_heads * head_dim
    # Of queries and keys: qwen3 normalizes each head by itself, olmo2 all together.
    norms = 2 * hidden + {"qwen3": 2 * head_dim, "olmo2": queries + keys}.get(kind, 0)
    linears: tuple[Linear, ...] = (
        Linear("self_attn.q_proj", hidden, queries, qkv_bias),
        Linear("self_attn.k_proj", hidden, keys, qkv_bias),
        Linear("self_attn.v_proj", hidden, keys, qkv_bias),
        Linear("self_attn.o_proj", queries, hidden, bias),
        Linear("mlp.gate_proj", hidden, inner, feed),
        Linear("mlp.up_proj", hidden, inner, feed),
        Linear("mlp.down_proj", inner, hidden, feed),
    )
    if kind == "phi3":
        linears = (
            Linear("self_attn.qkv_proj", hidden, queries + 2 * keys, bias=False),
            Linear("self_attn.o_proj", queries, hidden, bias=False),
            Linear("mlp.gate_up_proj", hidden, 2 * inner, bias=False),
            Linear("mlp.down_proj", inner, hidden, bias=False),
        )
    return ModelSize(
        model_type=kind,
        decoder=True,
        num_layers=config["num_hidden_layers"],
        num_distinct_layers=config["num_hidden_layers"],
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=inner,
        gated=True,
        vocabulary=config["vocab_size"],
        embedding_width=hidden,
        embedding=config["vocab_size"] * hidden,
        linears=linears,
        layer_norms=norms,
        missing_norms=0,
        final=hidden,
        head=_score(hidden, num_labels),
        head_norms=0,
        lora_targets=("qkv_proj",) if kind == "phi3" else ("q_proj", "v_proj"),
        output=_lm_head(config, hidden, num_labels),
        tied=bool(config["tie_word_embeddings"]),
    )


def _score(hidden: int, num_labels: int | None) -> tuple[Linear, ...]:
    """Return a decoder's classifier; nothing without labels."""
    return () if num_labels is None else (Linear("score", hidden, num_labels, bias=False),)


def _lm_head(config: Mapping[str, Any], hidden: int, num_labels: int | None) -> Linear | None:
    if num_labels is not None:
        return None
    return Linear("lm_head", hidden, config["vocab_size"], bias=False)


def gpt2_size(config: Mapping[str, Any], num_labels: int | None) -> ModelSize:
    """GPT-2."""
    hidden, heads = config["n_embd"], config["n_head"]
    inner = config.get("n_inner", 4 * hidden)
    return ModelSize(
        model_type="gpt2",
        decoder=True,
        num_layers=config["n_layer"],
        num_distinct_layers=config["n_layer"],
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        intermediate=inner,
        gated=False,
        vocabulary=config["vocab_size"],
        embedding_width=hidden,
        embedding=(config["vocab_size"] + config["n_positions"]) * hidden,
        linears=(
            Linear("attn.c_attn", hidden, 3 * hidden),
            Linear("attn.c_proj", hidden, hidden),
            Linear("mlp.c_fc", hidden, inner),
            Linear("mlp.c_proj", inner, hidden),
        ),
        layer_norms=4 * hidden,
        missing_norms=0,
        final=2 * hidden,
        head=_score(hidden, num_labels),
        head_norms=0,
        lora_targets=("c_attn",),
        output=_lm_head(config, hidden, num_labels),
        tied=bool(config["tie_word_embeddings"]),
    )
