"""A linear layer and a small change: beside it, so that many share one weight, or merged."""

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
            changed = _changed(self.weight, down, up)
            gain = magnitude.to(changed) / changed.norm(dim=1)
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


def merged_linear(
    linear: torch.nn.Linear,
    *,
    down: torch.Tensor,
    up: torch.Tensor,
    magnitude: torch.Tensor | None = None,
) -> torch.nn.Linear:
    """Return a linear layer with a weight of its own; see `AdaptedLinear`, which computes the same.

    It is as fast as the base's, and as large.
    """
    weight = _changed(linear.weight, down, up)
    if magnitude is not None:
        weight *= (magnitude.to(weight) / weight.norm(dim=1))[:, None]
    merged = torch.nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    merged.weight = torch.nn.Parameter(weight.to(linear.weight), requires_grad=False)
    merged.bias = linear.bias
    return merged


def _changed(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return a weight with its change, in fp32, shape (out, in)."""
    return weight.float() + up.to(weight.device) @ down.to(weight.device)
