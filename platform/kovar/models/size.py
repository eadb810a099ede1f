"""How large a model is, from its config.json alone: no weights, no torch.

The counts are those of transformers' `AutoModelForSequenceClassification`, or of
`AutoModelForCausalLM` where no number of labels is given; the tests compare them exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix.

    Args:
        name: path of its module within the layer, as LoRA's target modules name it.
        num_in: features in.
        num_out: features out.
        bias: whether it has one.
    """

    name: str
    num_in: int
    num_out: int
    bias: bool = True

    @property
    def num_parameters(self) -> int:
        """Weights and biases."""
        return self.num_out * (self.num_in + self.bias)

    @property
    def num_weights(self) -> int:
        """Weights alone."""
        return self.num_out * self.num_in


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Adapters beside frozen weights (Hu et al., 2021, https://arxiv.org/abs/2106.09685).

    The classification head is trained in full, as peft does for its task SEQ_CLS.

    Args:
        rank: inner dimension of the two factors.
        targets: module names or their last parts, or "all-linear"; empty means query and value.
        dropout: probability before the first factor.
    """

    rank: int
    targets: tuple[str, ...] = ()
    dropout: float = 0.0

    def adapts(self, linear: Linear, defaults: tuple[str, ...]) -> bool:
        """Tell whether this layer's matrix has an adapter; `defaults` are the family's targets."""
        targets = self.targets or defaults
        return "all-linear" in targets or any(
            linear.name == target or linear.name.endswith(f".{target}") for target in targets
        )

    def num_parameters(self, linear: Linear) -> int:
        """Weights of the two factors for one matrix."""
        return self.rank * (linear.num_in + linear.num_out)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Dimensions and numbers of parameters.

    Args:
        model_type: as config.json names the architecture.
        decoder: whether it generates text, so that it keeps keys and values.
        num_layers: layers that compute.
        num_distinct_layers: layers with weights of their own; ALBERT's share theirs.
        hidden: width of the stream between layers.
        num_heads: attention heads.
        num_kv_heads: heads of keys and values; fewer under grouped-query attention.
        head_dim: width of one head.
        intermediate: width inside the feed-forward part.
        gated: whether a gate of the same width multiplies it.
        vocabulary: tokens known.
        embedding_width: features of one token's embedding.
        embedding: parameters of tables, their norm, and the projection to `hidden`.
        linears: matrices of one layer, in the order in which they are used.
        layer_norms: parameters of one layer's norms.
        missing_norms: norm parameters that one layer lacks (ModernBERT's first).
        final: parameters of norms after the last layer.
        head: matrices after the layers.
        head_norms: parameters of norms in the head.
        lora_targets: what LoRA adapts where the user names nothing: query and value.
        output: the last matrix, onto the vocabulary; None without one.
        tied: whether its weights are those of the embedding.
        new_head: whether the base comes without this head, so that LoRA trains a copy of it.
    """

    model_type: str
    decoder: bool
    num_layers: int
    num_distinct_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool
    vocabulary: int
    embedding_width: int
    embedding: int
    linears: tuple[Linear, ...]
    layer_norms: int
    missing_norms: int
    final: int
    head: tuple[Linear, ...]
    head_norms: int
    lora_targets: tuple[str, ...]
    output: Linear | None = None
    tied: bool = False
    new_head: bool = False

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return self.layer_norms + sum(linear.num_parameters for linear in self.linears)

    @property
    def layers(self) -> int:
        """Parameters of all layers."""
        return self.num_distinct_layers * self.layer - self.missing_norms

    @property
    def head_parameters(self) -> int:
        """Parameters of the head, but for the matrix onto the vocabulary."""
        return self.head_norms + sum(linear.num_parameters for linear in self.head)

    @property
    def output_parameters(self) -> int:
        """Parameters of the matrix onto the vocabulary that are not the embedding's."""
        if self.output is None:
            return 0
        return self.output.num_parameters - (self.output.num_weights if self.tied else 0)

    @property
    def total(self) -> int:
        """All parameters, without adapters."""
        own = self.embedding + self.layers + self.final
        return own + self.head_parameters + self.output_parameters

    @property
    def matrix_parameters(self) -> int:
        """Weights that every token is multiplied with: N in the rule of 6 N FLOPs per token.

        Kaplan et al., 2020 (https://arxiv.org/abs/2001.08361) leave the embeddings out; layers
        that share weights count each time they compute.
        """
        layer = sum(linear.num_in * linear.num_out for linear in self.linears)
        return self.num_layers * layer

    def adapters(self, lora: LoraShape) -> int:
        """Parameters that LoRA adds."""
        adapted = [one for one in self.linears if lora.adapts(one, self.lora_targets)]
        count = self.num_distinct_layers * sum(lora.num_parameters(one) for one in adapted)
        if self.output is None or self.new_head:
            return count
        head = [one for one in self.head if lora.adapts(one, self.lora_targets)]
        return count + sum(lora.num_parameters(one) for one in head)

    @property
    def copied_head(self) -> int:
        """Parameters of the copy of a new language-model head that LoRA trains."""
        if self.output is None or not self.new_head:
            return 0
        return self.head_parameters + self.output.num_parameters

    def trainable(self, lora: LoraShape | None = None) -> int:
        """Parameters that get gradients: all, or LoRA's factors and the classifier."""
        if lora is None:
            return self.total
        trained = sum(one.num_parameters for one in self.head if trains_with_lora(one))
        return self.adapters(lora) + trained + self.copied_head


def trains_with_lora(linear: Linear) -> bool:
    """Tell whether a matrix of the head is trained beside adapters: peft's `modules_to_save`."""
    return linear.name.split(".")[0] in ("classifier", "pre_classifier", "score")


def model_size(config: Config, *, num_labels: int | None = None) -> ModelSize | None:
    """Return the size of a model, or None where the architecture is not known.

    Args:
        config: content of config.json; fields that it lacks have transformers' default.
        num_labels: classes of a classification head; None means the model as its file has it: a
            language-model head on a decoder, none on an encoder.
    """
    model_type = str(config.get("model_type"))
    family = _FAMILIES.get(model_type)
    if family is None:
        return None
    build, defaults = family
    given = {name: value for name, value in config.items() if value is not None}
    return build({**defaults, **given, "model_type": model_type}, num_labels)


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


def _bert(config: Config, num_labels: int | None) -> ModelSize:
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
    config: Config,
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


def _distilbert(config: Config, num_labels: int | None) -> ModelSize:
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


def _albert(config: Config, num_labels: int | None) -> ModelSize:
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


def _modernbert(config: Config, num_labels: int | None) -> ModelSize:
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


def _llama(config: Config, num_labels: int | None) -> ModelSize:
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


def _lm_head(config: Config, hidden: int, num_labels: int | None) -> Linear | None:
    if num_labels is not None:
        return None
    return Linear("lm_head", hidden, config["vocab_size"], bias=False)


def _gpt2(config: Config, num_labels: int | None) -> ModelSize:
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
_FAMILIES: Final[dict[str, tuple[_Build, Config]]] = {
    "albert": (
        _albert,
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
    "bert": (_bert, _BERT),
    "camembert": (_bert, _BERT),
    "distilbert": (
        _distilbert,
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
        _bert,
        {
            **_BERT,
            "embedding_size": 128,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
    ),
    "ernie": (_bert, {**_BERT, "task_type_vocab_size": 3}),
    "gemma": (
        _llama,
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
        _gpt2,
        {
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "tie_word_embeddings": True,
        },
    ),
    "llama": (_llama, _LLAMA),
    "mistral": (_llama, {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8}),
    "modernbert": (
        _modernbert,
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
    "olmo2": (_llama, {**_LLAMA, "vocab_size": 50304}),
    "phi3": (
        _llama,
        {**_LLAMA, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192},
    ),
    "qwen2": (_llama, _QWEN),
    "qwen3": (_llama, {**_QWEN, "head_dim": 128}),
    "roberta": (_bert, {**_BERT, "vocab_size": 50265}),
    "smollm3": (
        _llama,
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
    "xlm-roberta": (_bert, _BERT),
}
