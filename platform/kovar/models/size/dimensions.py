"""A model's dimensions, and the numbers of parameters that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from kovar.models.size.linear import Linear, LoraShape


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
