"""A linear layer and a small change beside it: many such layers share one weight."""

from __future__ import annotations

import torch
from torch.nn import functional


class AdaptedLinear(torch.nn.Module):
    """A linear layer whose change of low rank is computed beside it, never added to its weight.

    Args:
        linear: the base's layer; its weight and bias are shared, not copied.
        down: LoRA's A, shape (rank, in).
        up: LoRA's B times alpha / rank, shape (out, rank).
        magnitude: length of each row of the changed weight, shape (out,): DoRA's; None for LoRA.

    Sources: https://arxiv.org/abs/2106.09685, https://arxiv.org/abs/2402.09353
    """

    def __init__(
        self,
        linear: torch.nn.Linear,
        *,
        down: torch.Tensor,
        up: torch.Tensor,
        magnitude: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        gain = None
        if magnitude is not None:
            changed = self.weight.float() + up.to(self.weight.device) @ down.to(self.weight.device)
            gain = magnitude.to(self.weight.device) / changed.norm(dim=1)
        self.register_buffer("down", down.to(self.weight))
        self.register_buffer("up", up.t().contiguous().to(self.weight))
        self.register_buffer("gain", None if gain is None else gain.to(self.weight))

    down: torch.Tensor
    up: torch.Tensor
    gain: torch.Tensor | None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape (…, out), of inputs, shape (…, in)."""
        outputs = functional.linear(inputs, self.weight, self.bias if self.gain is None else None)
        low = functional.linear(inputs, self.down)
        # In place: the change costs no tensor of the output's size.
        outputs.flatten(0, -2).addmm_(low.flatten(0, -2), self.up)
        if self.gain is None:
            return outputs
        if self.bias is None:
            return outputs * self.gain
        return torch.addcmul(self.bias, outputs, self.gain)
