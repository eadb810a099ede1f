"""What the forward passes of all architectures have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from kovar.models.attention import attend
from kovar.models.forward import FP32_BYTES, NOTHING, Operation, Recording, Value
from kovar.models.size import ModelSize


class ModelPass(ABC):
    """Records one model.

    Args:
        config: content of config.json.
        size: what was found in it.
        tape: what it is recorded on.
        predicted_share: share of the tokens that the layer onto the vocabulary computes, with
            their loss; None for a pass that ends as the model was trained to serve.
    """

    activation: str
    attention_dropout: float
    several_documents = False
    """Whether rows hold several, which a mask keeps apart."""

    def __init__(
        self,
        config: Mapping[str, Any],
        size: ModelSize,
        tape: Recording,
        *,
        predicted_share: float | None,
    ) -> None:
        self.config = config
        self.size = size
        self.tape = tape
        self.kind = size.model_type
        self.predicted_share = predicted_share

    def run(self) -> None:
        """Record everything."""
        size, tape = self.size, self.tape
        x = self.embeddings()
        for index in range(size.num_layers):
            start = len(tape.operations)
            # Layers that share weights have one gradient between them.
            x = self.layer(x, index % size.num_distinct_layers)
            tape.blocks.append(range(start, len(tape.operations)))
        self.head(self.norm(x, "final", size.final) if size.final else x)

    @abstractmethod
    def embeddings(self) -> Value:
        """Record what makes vectors of tokens."""

    @abstractmethod
    def layer(self, x: Value, layer: int) -> Value:
        """Record one layer."""

    @abstractmethod
    def head(self, x: Value) -> None:
        """Record what follows the layers and their norm."""

    @abstractmethod
    def norm(self, x: Value, key: object, num_parameters: int | None = None) -> Value:
        """Normalize the stream between layers; by default with a layer's number of weights."""

    @property
    def tied_parameters(self) -> int:
        """Weights of the embedding that the last layer's gradient is for, too."""
        size = self.size
        is_read_twice = self.predicted_share is not None and size.tied and size.output is not None
        return size.vocabulary * size.embedding_width if is_read_twice else 0

    def number(self, name: str, default: float) -> float:
        """Return a field of the configuration."""
        value = self.config.get(name)
        return default if value is None else float(value)

    def matrix(self, x: Value, position: int, layer: int) -> Value:
        """Multiply with a layer's matrix and its adapter."""
        linear = self.size.linears[position]
        return self.tape.adapted(x, linear, self.size.lora_targets, key=(layer, linear.name))

    def attend(self, query: Value, key: Value, value: Value, *, masked: bool = True) -> Value:
        """Attend with all heads."""
        parts = (self.tape.cast(one) for one in (query, key, value))
        return attend(
            self.tape,
            *parts,
            num_heads=self.size.num_heads,
            dropout=self.attention_dropout,
            masked=masked,
        )

    def predict(self, x: Value, share: float) -> None:
        """Record the layer onto the vocabulary for some of the tokens, and their loss in fp32."""
        tape, output = self.tape, self.size.output
        if output is None:
            raise TypeError(f"{self.kind} has no layer onto the vocabulary")
        places, targets = (tape.tokens(share, 8, needs_grad=False) for _ in range(2))
        grad = x.needs_grad
        chosen = Value(x.size.times(share), x.itemsize, grad)
        tape.add(Operation((x,), chosen, saved=(places,) if grad else ()))
        trained = tape.trains_all or (tape.training and self.size.new_head)
        logits = tape.linear(chosen, output, trained=trained, key="output")
        # The model's answer is referred to until the backward pass has ended.
        tape.held.append(logits)
        wide = logits.size.times(FP32_BYTES / logits.itemsize)
        precise = logits
        if logits.itemsize < FP32_BYTES:
            precise = tape.add(Operation((logits,), Value(wide, FP32_BYTES, logits.needs_grad)))
        chances = Value(wide, FP32_BYTES, logits.needs_grad)
        kept = (chances,) if logits.needs_grad else ()
        tape.add(Operation((precise,), chances, saved=kept))
        loss = Value(NOTHING, FP32_BYTES, logits.needs_grad)
        tape.add(Operation((chances,), loss, saved=(*kept, targets) if kept else ()))
