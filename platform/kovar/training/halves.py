"""Weights kept in bf16 without losing small updates: an fp32 number in two halves of 16 bits.

A bf16 number has 8 bits of mantissa, so an update smaller than 1/512 of its weight would be rounded
away, and at usual learning rates most are. So the model computes with the high half, a bf16 number,
and the low half, 16 bits that make it an fp32 number again, waits beside it (split weights, as in
arXiv 2005.04680). Both are joined for the moment of the update and split again after it: nothing is
rounded away, there is no random rounding, and a resumed run repeats the same bits. Between steps
a weight takes 4 bytes and its gradient 2, where fp32 weights under autocast take 4, 4 and a copy
of 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from kovar.training.optimizer import NamedParameters

Weights = Literal["fp32", "bf16"]
"""Number formats that weights are kept in between steps."""

_LOW = "low/"
_BITS = 16


def keep_in_bf16(model: torch.nn.Module) -> bool:
    """Cast a model's weights to bf16; return whether those that are trained are among them.

    Where few of many weights are trained (adapters), those stay in fp32: they need little memory.
    """
    import torch

    floating = [p for p in model.parameters() if p.is_floating_point()]
    num_trained = sum(p.numel() for p in floating if p.requires_grad)
    casts_trained = num_trained * 10 >= sum(p.numel() for p in floating)
    for parameter in floating:
        if casts_trained or not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    return casts_trained


class Halves:
    """The trained weights of a model in bf16, and what their updates need.

    Args:
        parameters: the model's own, in bf16.

    Attributes:
        whole: the same weights in fp32, for the optimizer; empty but between `join` and `split`.
    """

    def __init__(self, parameters: NamedParameters) -> None:
        import torch

        self._high = list(parameters.values())
        self._names = list(parameters)
        self._low = [torch.zeros_like(high, dtype=torch.int16) for high in self._high]
        # Their number of dimensions decides about decay, so they are whole when it is asked for.
        self.whole = {
            name: torch.nn.Parameter(high.detach().float()) for name, high in parameters.items()
        }

    def release(self) -> None:
        """Give the memory of the fp32 weights back until the next step."""
        for whole in self.whole.values():
            whole.data = whole.data.new_empty(0)

    def join(self) -> None:
        """Make the fp32 weights and their gradients; the model's own gradients are gone."""
        for parameter, high, low in zip(self.whole.values(), self._high, self._low, strict=True):
            parameter.data = joined(high.detach(), low)
            parameter.grad = None if high.grad is None else high.grad.float()
            high.grad = None

    def split(self) -> None:
        """Put the fp32 weights back into halves, the high one rounded to nearest."""
        import torch

        for parameter, high, low in zip(self.whole.values(), self._high, self._low, strict=True):
            bits = parameter.data.view(torch.int32)
            high.data.copy_(parameter.data)
            bits.sub_(_shifted(high.detach()))
            # Halfway to a number below it the distance is one more than 16 bits hold.
            low.copy_(bits.clamp_(max=(1 << (_BITS - 1)) - 1))
        self.release()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the low halves themselves, named `low/PARAMETER`."""
        return {f"{_LOW}{name}": low for name, low in zip(self._names, self._low, strict=True)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` returned."""
        for name, low in zip(self._names, self._low, strict=True):
            low.copy_(tensors[f"{_LOW}{name}"])


def joined(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Return fp32 numbers from their halves: bf16, and int16 of the same shape."""
    import torch

    return _shifted(high).add_(low).view(torch.float32)


def _shifted(high: torch.Tensor) -> torch.Tensor:
    """Return the bits of bf16 numbers as those of fp32 numbers."""
    import torch

    return high.view(torch.int16).to(torch.int32).bitwise_left_shift_(_BITS)


def take_low_halves(
    tensors: dict[str, torch.Tensor], parameters: NamedParameters, halves: Halves | None
) -> None:
    """Take the low halves out of a checkpoint's tensors: into halves, or into fp32 weights."""
    lows = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_LOW)}
    if halves is not None:
        halves.restore(lows)
        return
    for name, low in lows.items():
        weight = parameters[name.removeprefix(_LOW)].data
        weight.copy_(joined(weight.bfloat16(), low.to(weight.device)))
