"""Encoders: their dimensions from config.json, and a classifier on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kovar.models.size.dimensions import ModelSize
from kovar.models.size.linear import Linear


def _head(width: int, num_labels: int | None, *, before: str | None) -> tuple[Linear, ...]:
    """Return a square layer under this name, then the classifier; nothing without labels."""
    if num_labels is None:
        return ()
    if before is None:
        return (Linear("classifier", width, num_labels),)
    last = "classifier.out_proj" if before.startswith("classifier") else "classifier"
    return (Linear(before, width, width), Linear(last, width, num_labels))


def _attention(names: tuple[str, str, str, str], width: int) -> tuple[Linear, ...]:
    return tuple(Linear(name, width, width) for name in names)


def bert_size(config: Mapping[str, Any], num_labels: int | None) -> ModelSize:
    """BERT and its kin: RoBERTa, CamemBERT, XLM-RoBERTa, ELECTRA, ERNIE."""
    kind, hidden, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    width = config.get("embedding_size", hidden) if kind == "electra" else hidden
    tables = config["vocab_size"] + config["max_position_embeddings"] + config["type_vocab_size"]
    if kind == "ernie" and config.get("use_task_id"):
        tables += config["task_type_vocab_size"]
    projection = hidden * (width + 1) if width != hidden else 0
    pooled = kind in ("bert", "ernie")
    linears = (
        *_attention(
            (
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
            ),
            hidden,
        ),
        Linear("intermediate.dense", hidden, inner),
        Linear("output.dense", inner, hidden),
    )
    head = _head(hidden, num_labels, before="pooler.dense" if pooled else "classifier.dense")
    return _encoder(
        config,
        num_layers=config["num_hidden_layers"],
        hidden=hidden,
        num_heads=config["num_attention_heads"],
        intermediate=inner,
        embedding_width=width,
        embedding=(tables + 2) * width + projection,
        linears=linears,
        head=head,
        lora_targets=("query", "value"),
    )


def _encoder(
    config: Mapping[str, Any],
    *,
    num_layers: int,
    hidden: int,
    num_heads: int,
    intermediate: int,
    embedding_width: int,
    embedding: int,
    linears: tuple[Linear, ...],
    head: tuple[Linear, ...],
    lora_targets: tuple[str, ...],
    num_distinct_layers: int | None = None,
    gated: bool = False,
    layer_norms: int | None = None,
    missing_norms: int = 0,
    final: int = 0,
    head_norms: int = 0,
) -> ModelSize:
    """Fill in what encoders have in common."""
    return ModelSize(
        model_type=config["model_type"],
        decoder=False,
        num_layers=num_layers,
        num_distinct_layers=num_layers if num_distinct_layers is None else num_distinct_layers,
        hidden=hidden,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden // num_heads,
        intermediate=intermediate,
        gated=gated,
        vocabulary=config["vocab_size"],
        embedding_width=embedding_width,
        embedding=embedding,
        linears=linears,
        # Two norms, each with weights and biases.
        layer_norms=4 * hidden if layer_norms is None else layer_norms,
        missing_norms=missing_norms,
        final=final,
        head=head,
        head_norms=head_norms,
        lora_targets=lora_targets,
    )


def distilbert_size(config: Mapping[str, Any], num_labels: int | None) -> ModelSize:
    """DistilBERT."""
    hidden, inner = config["dim"], config["hidden_dim"]
    tables = config["vocab_size"] + config["max_position_embeddings"]
    names = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
    return _encoder(
        config,
        num_layers=config["n_layers"],
        hidden=hidden,
        num_heads=config["n_heads"],
        intermediate=inner,
        embedding_width=hidden,
        embedding=(tables + 2) * hidden,
        linears=(
            *_attention(names, hidden),
            Linear("ffn.lin1", hidden, inner),
            Linear("ffn.lin2", inner, hidden),
        ),
        head=_head(hidden, num_labels, before="pre_classifier"),
        lora_targets=("q_lin", "v_lin"),
    )


def albert_size(config: Mapping[str, Any], num_labels: int | None) -> ModelSize:
    """ALBERT, whose layers share their weights."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    width = config["embedding_size"]
    tables = config["vocab_size"] + config["max_position_embeddings"] + config["type_vocab_size"]
    names = ("attention.query", "attention.key", "attention.value", "attention.dense")
    return _encoder(
        config,
        num_layers=config["num_hidden_layers"] * config["inner_group_num"],
        num_distinct_layers=config["num_hidden_groups"] * config["inner_group_num"],
        hidden=hidden,
        num_heads=config["num_attention_heads"],
        intermediate=inner,
        embedding_width=width,
        embedding=(tables + 2) * width + hidden * (width + 1),
        linears=(
            *_attention(names, hidden),
            Linear("ffn", hidden, inner),
            Linear("ffn_output", inner, hidden),
        ),
        head=_head(hidden, num_labels, before="pooler"),
        lora_targets=("query", "value"),
    )


def modernbert_size(config: Mapping[str, Any], num_labels: int | None) -> ModelSize:
    """ModernBERT, whose first layer lacks a norm."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    norm = hidden * (2 if config["norm_bias"] else 1)
    attention, feed = config["attention_bias"], config["mlp_bias"]
    head = _head(hidden, num_labels, before="head.dense")
    if head:
        head = (Linear("head.dense", hidden, hidden, config["classifier_bias"]), head[1])
    return _encoder(
        config,
        num_layers=config["num_hidden_layers"],
        hidden=hidden,
        num_heads=config["num_attention_heads"],
        intermediate=inner,
        gated=True,
        embedding_width=hidden,
        embedding=config["vocab_size"] * hidden + norm,
        linears=(
            Linear("attn.Wqkv", hidden, 3 * hidden, attention),
            Linear("attn.Wo", hidden, hidden, attention),
            Linear("mlp.Wi", hidden, 2 * inner, feed),
            Linear("mlp.Wo", inner, hidden, feed),
        ),
        layer_norms=2 * norm,
        missing_norms=norm,
        final=norm,
        head=head,
        head_norms=norm if head else 0,
        lora_targets=("Wqkv",),
    )
