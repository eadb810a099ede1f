"""The forward passes of decoders, as transformers 5 computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kovar.models.forward import FP32_BYTES, Bytes, Operation, Recording, Value
from kovar.models.model_pass import ModelPass
from kovar.models.size import ModelSize

# The name in config.json, and transformers' default.
_ACTIVATIONS: Final = {
    "gemma": ("hidden_act", "gelu_pytorch_tanh"),
    "gpt2": ("activation_function", "gelu_new"),
}

# Probabilities: of the embeddings, of attention weights, of what is added to the stream. Other
# kinds have that of attention weights alone.
_DROPOUTS: Final = {
    "gpt2": (("embd_pdrop", 0.1), ("attn_pdrop", 0.1), ("resid_pdrop", 0.1)),
    "phi3": (("embd_pdrop", 0.0), ("attention_dropout", 0.0), ("resid_pdrop", 0.0)),
}


class DecoderPass(ModelPass):
    """Records one decoder.

    Rows that are learned are padded on the right and need no mask; a prompt that is answered has
    one, and so have documents that share a row.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        size: ModelSize,
        tape: Recording,
        *,
        predicted_share: float | None,
    ) -> None:
        super().__init__(config, size, tape, predicted_share=predicted_share)
        name, default = _ACTIVATIONS.get(self.kind, ("hidden_act", "silu"))
        self.activation = str(config.get(name) or default)
        none = ("", 0.0)
        dropouts = _DROPOUTS.get(self.kind, (none, ("attention_dropout", 0.0), none))
        first, self.attention_dropout, self.stream_dropout = (self.number(*one) for one in dropouts)
        # Phi-3 names one for the embeddings and does not apply it.
        self.embedding_dropout = first if self.kind == "gpt2" else 0.0
        angles = 2 * tape.length * size.head_dim * tape.arithmetic.weight_bytes
        self._angles = Value(Bytes(angles), tape.arithmetic.weight_bytes, needs_grad=False)

    def embeddings(self) -> Value:
        """Tokens, and positions where they have a table."""
        size, tape = self.size, self.tape
        x = tape.embed(size.embedding, size.embedding_width, tied=self.tied_parameters)
        return tape.dropout(x, self.embedding_dropout)

    def layer(self, x: Value, layer: int) -> Value:
        """Norm, attention, sum, norm, feed forward, sum; OLMo 2 normalizes after each part."""
        tape = self.tape
        after = self.kind == "olmo2"
        part = self._attention(x if after else self.norm(x, (layer, "first")), layer)
        part = self.norm(part, (layer, "first")) if after else part
        x = tape.sum(x, tape.dropout(part, self.stream_dropout))
        part = self._feed_forward(x if after else self.norm(x, (layer, "second")), layer)
        part = self.norm(part, (layer, "second")) if after else part
        return tape.sum(x, tape.dropout(part, self.stream_dropout))

    def norm(self, x: Value, key: object, num_parameters: int | None = None) -> Value:
        """Normalize the stream: by squares, but GPT-2's as encoders do."""
        hidden = self.size.hidden
        if self.kind == "gpt2":
            return self.tape.normalize(x, 2 * hidden, hidden, key=key)
        return self._by_squares(x, hidden, hidden, key)

    def _by_squares(self, x: Value, num_parameters: int, width: int, key: object) -> Value:
        keeps = self.kind in ("olmo2", "gemma")
        return self.tape.normalize_by_squares(x, num_parameters, width, key=key, keeps_format=keeps)

    def _attention(self, x: Value, layer: int) -> Value:
        """Matrices, rotation, attention, matrix."""
        size, tape = self.size, self.tape
        queries, keys = (heads * size.head_dim for heads in (size.num_heads, size.num_kv_heads))
        if len(size.linears) == 4:
            both = self.matrix(x, 0, layer)
            shares = (one / (queries + 2 * keys) for one in (queries, keys, keys))
            query, key, value = (tape.view(both, share) for share in shares)
            last = 1
        else:
            query, key, value = (self.matrix(x, position, layer) for position in (0, 1, 2))
            last = 3
        if self.kind in ("qwen3", "olmo2"):
            by_head = self.kind == "qwen3"
            widths = (size.head_dim, size.head_dim) if by_head else (queries, keys)
            query, key = (
                self._by_squares(one, width, width, (layer, name))
                for one, width, name in zip((query, key), widths, ("query", "key"), strict=True)
            )
        if self._rotates(layer):
            query, key = self._rotate(query), self._rotate(key)
        masked = self.several_documents or self.predicted_share is None
        if masked and size.num_kv_heads < size.num_heads:
            key, value = (self._repeat(one) for one in (key, value))
        attended = self.attend(query, key, value, masked=masked)
        if self.kind == "phi3":
            # Its rotated queries lie head by head, and so does what the kernel makes of them.
            attended = tape.elementwise(attended)
        return self.matrix(attended, last, layer)

    def _feed_forward(self, x: Value, layer: int) -> Value:
        """Matrix, activation, where there is one a gate, matrix."""
        size, tape = self.size, self.tape
        last = len(size.linears) - 1
        first = 2 if last == 3 else 4
        wide = self.matrix(x, first, layer)
        if self.kind == "phi3":
            gate, up = tape.view(wide, 1 / 2), tape.view(wide, 1 / 2)
            inner = tape.gate(up, tape.activate(gate, self.activation))
        else:
            inner = tape.activate(wide, self.activation)
            if size.gated:
                inner = tape.gate(inner, self.matrix(x, first + 1, layer))
        return self.matrix(inner, last, layer)

    def _rotates(self, layer: int) -> bool:
        """Tell whether positions turn queries and keys: not in GPT-2, nor in some layers."""
        if self.kind != "smollm3":
            return self.kind != "gpt2"
        rotates = self.config.get("no_rope_layers")
        interval = int(self.number("no_rope_layer_interval", 4))
        return bool(rotates[layer]) if rotates else (layer + 1) % interval != 0

    def _rotate(self, x: Value) -> Value:
        """Rotary position embedding: two products and a sum, in the format of the stream."""
        itemsize = max(x.itemsize, self.tape.arithmetic.weight_bytes)
        wide = x.size.times(itemsize / x.itemsize)
        itemsize = x.itemsize if self.kind == "olmo2" else itemsize
        return self.tape.add(
            Operation(
                (x,),
                Value(x.size.times(itemsize / x.itemsize), itemsize, x.needs_grad),
                saved=(self._angles,) if x.needs_grad else (),
                forward_scratch=wide.times(2),
                backward_scratch=wide.times(2),
            )
        )

    def _repeat(self, x: Value) -> Value:
        """Copy keys or values for all heads, as attention under a mask needs them."""
        size = x.size.times(self.size.num_heads / self.size.num_kv_heads)
        return self.tape.add(Operation((x,), Value(size, x.itemsize, x.needs_grad)))

    def head(self, x: Value) -> None:
        """Scores of the tokens that are learned; or else of the last one alone, in fp32."""
        tape, size = self.tape, self.size
        if self.predicted_share is not None:
            self.predict(x, self.predicted_share)
            return
        last = tape.view(x, 1 / tape.length)
        head = size.output or size.head[0]
        scores = tape.linear(last, head, trained=False)
        widened = scores.size.times(FP32_BYTES / scores.itemsize)
        tape.add(Operation((scores,), Value(widened, FP32_BYTES, needs_grad=False)))
