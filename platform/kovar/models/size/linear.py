"""One weight matrix, and adapters beside it."""

from __future__ import annotations

from dataclasses import dataclass


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
