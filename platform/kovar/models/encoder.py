"""The forward passes of encoders, as transformers 5 computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kovar.models.forward import FP32_BYTES, Operation, Recording, Value
from kovar.models.model_pass import ModelPass
from kovar.models.size import Linear, ModelSize, trains_with_lora

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
    "modernbert": ("hidden_activation", "gelu"),
}
_BERT_ACTIVATION: Final = ("hidden_act", "gelu")


class EncoderPass(ModelPass):
    """Records one encoder with its head, if it has one."""

    def __init__(
        self,
        config: Mapping[str, Any],
        size: ModelSize,
        tape: Recording,
        *,
        predicted_share: float | None,
    ) -> None:
        super().__init__(config, size, tape, predicted_share=predicted_share)
        stream, attention, head = _DROPOUTS.get(self.kind, _BERT_DROPOUTS)
        self.hidden_dropout = self.number(*stream)
        self.attention_dropout = self.number(*attention)
        name, default = head
        # Most heads take the stream's where they have none of their own.
        self.head_dropout = self.number(name, self.hidden_dropout if default is None else default)
        self.mlp_dropout = float(config.get("mlp_dropout") or 0.0)
        name, activation = _ACTIVATIONS.get(self.kind, _BERT_ACTIVATION)
        self.activation = str(config.get(name) or activation)

    def embeddings(self) -> Value:
        """Tables, their norm, and a projection where the layers are of another width."""
        size, tape = self.size, self.tape
        width = size.embedding_width
        projection = Linear("projection", width, size.hidden)
        rest = size.embedding - (projection.num_parameters if width != size.hidden else 0)
        norm = size.missing_norms or 2 * width
        x = tape.embed(rest - norm, width, tied=self.tied_parameters)
        x = tape.normalize(x, norm, width)
        x = tape.dropout(x, self.hidden_dropout)
        if width == size.hidden:
            return x
        return tape.linear(x, projection, trained=tape.trains_all)

    def layer(self, x: Value, layer: int) -> Value:
        """As BERT does, or as ModernBERT."""
        if self.kind == "modernbert":
            return self._modern_layer(x, layer)
        return self._bert_layer(x, layer)

    def norm(self, x: Value, key: object, num_parameters: int | None = None) -> Value:
        """Normalize the stream: mean 0, deviation 1."""
        num = self.size.layer_norms // 2 if num_parameters is None else num_parameters
        return self.tape.normalize(x, num, self.size.hidden, key=key)

    def _bert_layer(self, x: Value, layer: int) -> Value:
        """Attention, sum, norm, feed forward, sum, norm."""
        tape = self.tape
        query, key, value = (self.matrix(x, position, layer) for position in (0, 1, 2))
        out = self.matrix(self.attend(query, key, value), 3, layer)
        if self.kind != "distilbert":
            out = tape.dropout(out, self.hidden_dropout)
        attended = self.norm(tape.sum(out, x), (layer, "first"))
        inner = tape.activate(self.matrix(attended, 4, layer), self.activation)
        out = self.matrix(inner, 5, layer)
        if self.kind != "albert":
            out = tape.dropout(out, self.hidden_dropout)
        # The caller's variable refers to the layer's input until the layer returns.
        return self.norm(tape.sum(out, attended, holds=(x,)), (layer, "second"))

    def _modern_layer(self, x: Value, layer: int) -> Value:
        """Norm, attention, sum, norm, gated feed forward, sum."""
        tape, norm = self.tape, self.size.missing_norms
        normed = self.norm(x, (layer, "first"), norm) if layer else x
        both = self.matrix(normed, 0, layer)
        parts = [tape.view(both, 1 / 3) for _ in range(3)]
        out = self.attend(self._rotate(parts[0]), self._rotate(parts[1]), parts[2])
        out = tape.dropout(self.matrix(out, 1, layer), self.attention_dropout)
        x = tape.sum(x, out)
        inner = self.matrix(self.norm(x, (layer, "second"), norm), 2, layer)
        product = tape.gate(
            tape.activate(tape.view(inner, 1 / 2), self.activation), tape.view(inner, 1 / 2)
        )
        return tape.sum(x, self.matrix(tape.dropout(product, self.mlp_dropout), 3, layer))

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

    def head(self, x: Value) -> None:
        """A classifier, or the layer onto the vocabulary."""
        if self.predicted_share is not None:
            self._guess(x, self.predicted_share)
        elif self.size.head:
            self._classify(x)

    def _guess(self, x: Value, share: float) -> None:
        """All tokens through one more layer, the hidden ones onto the vocabulary."""
        tape, size = self.tape, self.size
        (dense,) = size.head
        if tape.training and size.new_head:
            inner = tape.linear(x, dense, trained=True)
        else:
            inner = tape.adapted(x, dense, size.lora_targets)
        # RoBERTa's head and ELECTRA's are made with this function, whatever the layers have.
        is_fixed = self.kind in ("roberta", "xlm-roberta", "camembert", "electra")
        name = "gelu" if is_fixed else self.activation
        if self.kind == "modernbert":
            name = str(self.config.get("classifier_activation") or "gelu")
        inner = tape.activate(inner, name)
        self.predict(tape.normalize(inner, size.head_norms, dense.num_out), share)

    def _classify(self, x: Value) -> None:
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
            pooled = self.norm(pooled, "head", size.head_norms)
        pooled = tape.dropout(pooled, self.head_dropout)
        tape.linear(pooled, classifier, trained=trained[1])
