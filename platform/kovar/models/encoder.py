"""The forward passes of the known architectures, as transformers 5 computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kovar.models.forward import (
    ACTIVATIONS,
    FP32_BYTES,
    Arithmetic,
    DeviceKind,
    Operation,
    Recording,
    Value,
)
from kovar.models.size import Linear, LoraShape, ModelSize, trains_with_lora

# Probabilities where config.json says nothing: of the stream, of attention weights, of the head.
_Dropouts = tuple[tuple[str, float], tuple[str, float], tuple[str, float | None]]
_DROPOUTS: Final[dict[str, _Dropouts]] = {
    "albert": (
        ("hidden_dropout_prob", 0.0),
        ("attention_probs_dropout_prob", 0.0),
        ("classifier_dropout_prob", 0.1),
    ),
    "distilbert": (("dropout", 0.1), ("attention_dropout", 0.1), ("seq_classif_dropout", 0.2)),
    "modernbert": (
        ("embedding_dropout", 0.0),
        ("attention_dropout", 0.0),
        ("classifier_dropout", 0.0),
    ),
}
_BERT_DROPOUTS: Final[_Dropouts] = (
    ("hidden_dropout_prob", 0.1),
    ("attention_probs_dropout_prob", 0.1),
    ("classifier_dropout", None),
)

# The name in config.json, and transformers' default.
_ACTIVATIONS: Final = {
    "albert": ("hidden_act", "gelu_new"),
    "distilbert": ("activation", "gelu"),
    "gemma": ("hidden_act", "gelu_pytorch_tanh"),
    "gpt2": ("activation_function", "gelu_new"),
    "modernbert": ("hidden_activation", "gelu"),
}
_DECODER_ACTIVATION: Final = ("hidden_act", "silu")
_BERT_ACTIVATION: Final = ("hidden_act", "gelu")


def record(
    config: Mapping[str, Any],
    size: ModelSize,
    *,
    length: int,
    arithmetic: Arithmetic,
    device: DeviceKind,
    training: bool,
    lora: LoraShape | None = None,
) -> Recording | None:
    """Record the forward pass of a classifier, or of a decoder that reads its prompt.

    Returns None where the activation function is not known.

    Args:
        config: content of config.json.
        size: what `model_size` found in it.
        length: tokens of each row.
        arithmetic: number formats.
        device: where it runs.
        training: whether dropout is active and a backward pass follows.
        lora: trains adapters in place of all weights.
    """
    recording = Recording(length, arithmetic, device, training, lora)
    one = _Pass(config, size, recording)
    return one.run() if one.activation in ACTIVATIONS else None


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    return default if value is None else float(value)


class _Pass:
    """Records one model."""

    def __init__(self, config: Mapping[str, Any], size: ModelSize, recording: Recording) -> None:
        self.size = size
        self.tape = recording
        self.kind = size.model_type
        stream, attention, head = _DROPOUTS.get(self.kind, _BERT_DROPOUTS)
        self.hidden_dropout = _number(config, *stream)
        self.attention_dropout = _number(config, *attention)
        name, default = head
        # Most heads take the stream's where they have none of their own.
        self.head_dropout = _number(
            config, name, self.hidden_dropout if default is None else default
        )
        self.mlp_dropout = float(config.get("mlp_dropout") or 0.0)
        usual = _DECODER_ACTIVATION if size.decoder else _BERT_ACTIVATION
        name, activation = _ACTIVATIONS.get(self.kind, usual)
        self.activation = str(config.get(name) or activation)

    def run(self) -> Recording:
        """Record everything."""
        size = self.size
        x = self._embeddings()
        for index in range(size.num_layers):
            # Layers that share weights have one gradient between them.
            layer = index % size.num_distinct_layers
            if size.decoder:
                x = self._decoder_layer(x, layer)
            elif self.kind == "modernbert":
                x = self._modern_layer(x, layer)
            else:
                x = self._bert_layer(x, layer)
        if size.final:
            x = self._norm(x, "final", size.final)
        if size.decoder:
            self._decoder_head(x)
        elif size.head:
            self._head(x)
        return self.tape

    def _embeddings(self) -> Value:
        size, tape = self.size, self.tape
        width = size.embedding_width
        projection = Linear("projection", width, size.hidden)
        rest = size.embedding - (projection.num_parameters if width != size.hidden else 0)
        if size.decoder:
            return tape.embed(rest, width)
        norm = size.missing_norms or 2 * width
        x = tape.normalize(tape.embed(rest - norm, width), norm, width)
        x = tape.dropout(x, self.hidden_dropout)
        if width == size.hidden:
            return x
        return tape.linear(x, projection, trained=tape.trains_all)

    def _matrix(self, x: Value, position: int, layer: int) -> Value:
        linear = self.size.linears[position]
        return self.tape.adapted(x, linear, self.size.lora_targets, key=(layer, linear.name))

    def _norm(self, x: Value, key: object, num_parameters: int | None = None) -> Value:
        num = self.size.layer_norms // 2 if num_parameters is None else num_parameters
        return self.tape.normalize(x, num, self.size.hidden, key=key)

    def _attend(self, query: Value, key: Value, value: Value) -> Value:
        return self.tape.attend(
            query, key, value, num_heads=self.size.num_heads, dropout=self.attention_dropout
        )

    def _bert_layer(self, x: Value, layer: int) -> Value:
        """Attention, sum, norm, feed forward, sum, norm."""
        tape = self.tape
        query, key, value = (self._matrix(x, position, layer) for position in (0, 1, 2))
        out = self._matrix(self._attend(query, key, value), 3, layer)
        if self.kind != "distilbert":
            out = tape.dropout(out, self.hidden_dropout)
        attended = self._norm(tape.sum(out, x), (layer, "first"))
        inner = tape.activate(self._matrix(attended, 4, layer), self.activation)
        out = self._matrix(inner, 5, layer)
        if self.kind != "albert":
            out = tape.dropout(out, self.hidden_dropout)
        # The caller's variable refers to the layer's input until the layer returns.
        return self._norm(tape.sum(out, attended, holds=(x,)), (layer, "second"))

    def _modern_layer(self, x: Value, layer: int) -> Value:
        """Norm, attention, sum, norm, gated feed forward, sum."""
        tape, norm = self.tape, self.size.missing_norms
        normed = self._norm(x, (layer, "first"), norm) if layer else x
        both = self._matrix(normed, 0, layer)
        parts = [tape.view(both, 1 / 3) for _ in range(3)]
        out = self._attend(self._rotate(parts[0]), self._rotate(parts[1]), parts[2])
        out = tape.dropout(self._matrix(out, 1, layer), self.attention_dropout)
        x = tape.sum(x, out)
        inner = self._matrix(self._norm(x, (layer, "second"), norm), 2, layer)
        product = tape.gate(
            tape.activate(tape.view(inner, 1 / 2), self.activation), tape.view(inner, 1 / 2)
        )
        return tape.sum(x, self._matrix(tape.dropout(product, self.mlp_dropout), 3, layer))

    def _rotate(self, x: Value) -> Value:
        """Rotary position embedding, computed in fp32: two products and a sum."""
        wide = x.size.times(3 * FP32_BYTES / x.itemsize)
        return self.tape.add(
            Operation(
                (x,),
                Value(x.size, x.itemsize, x.needs_grad),
                forward_scratch=wide,
                backward_scratch=wide,
            )
        )

    def _head(self, x: Value) -> None:
        """The first token's features through one more layer, then the classifier."""
        tape, size = self.tape, self.size
        first = tape.view(x, 1 / tape.length)
        dense, classifier = size.head
        inside = dense.name.startswith("classifier")
        if inside:
            first = tape.dropout(first, self.head_dropout)
        trained = [
            tape.trains_all or (tape.lora is not None and tape.training and trains_with_lora(one))
            for one in (dense, classifier)
        ]
        pooled = tape.activate(tape.linear(first, dense, trained=trained[0]), "tanh")
        if size.head_norms:
            pooled = self._norm(pooled, "head", size.head_norms)
        pooled = tape.dropout(pooled, self.head_dropout)
        tape.linear(pooled, classifier, trained=trained[1])

    def _decoder_layer(self, x: Value, layer: int) -> Value:
        """Norm, attention, sum, norm, feed forward, sum; keys and values repeated for all heads."""
        tape, size = self.tape, self.size
        normed = self._norm(x, (layer, "first"))
        if len(size.linears) == 4:
            both = self._matrix(normed, 0, layer)
            query, key, value = (tape.view(both, 1 / 3) for _ in range(3))
            last = 1
        else:
            query, key, value = (self._matrix(normed, position, layer) for position in (0, 1, 2))
            query, key = self._rotate(query), self._rotate(key)
            last = 3
        if size.num_kv_heads < size.num_heads:
            key, value = (self._repeat(one) for one in (key, value))
        x = tape.sum(x, self._matrix(self._attend(query, key, value), last, layer))
        normed = self._norm(x, (layer, "second"))
        inner = tape.activate(self._matrix(normed, last + 1, layer), self.activation)
        if size.gated:
            inner = tape.gate(inner, self._matrix(normed, last + 2, layer))
        return tape.sum(x, self._matrix(inner, len(size.linears) - 1, layer))

    def _repeat(self, x: Value) -> Value:
        size = x.size.times(self.size.num_heads / self.size.num_kv_heads)
        return self.tape.add(Operation((x,), Value(size, x.itemsize, x.needs_grad)))

    def _decoder_head(self, x: Value) -> None:
        """Scores of the last token alone, in fp32."""
        tape, size = self.tape, self.size
        last = tape.view(x, 1 / tape.length)
        head = (
            size.head[0] if size.head else Linear("wte", size.hidden, size.vocabulary, bias=False)
        )
        scores = tape.linear(last, head, trained=False)
        widened = scores.size.times(FP32_BYTES / scores.itemsize)
        tape.add(Operation((scores,), Value(widened, FP32_BYTES, needs_grad=False)))
