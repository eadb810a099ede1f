"""Weights kept in bf16 without losing small updates: two bf16 numbers each.

A bf16 number has 8 bits of mantissa, so an update smaller than 1/512 of its weight would be rounded
away, and at usual learning rates most are. So the trained weight is the sum of two: the high half,
which the model computes with, and the rest, which it leaves out. Both are joined in fp32 for the
moment of the update and split again after it: 16 bits of mantissa, as with compensated summation
(Kahan), and no random rounding, so a resumed run repeats the same bits. Between steps a weight
takes 4 bytes and its gradient 2, where fp32 weights under autocast take 4, 4 and a copy of 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from kovar.training.optimizer import NamedParameters

Weights = Literal["fp32", "bf16"]
"""Number formats that weights are kept in between steps."""

_REST = "rest/"


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
        self._rest = [torch.zeros_like(high, requires_grad=False) for high in self._high]
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
        import torch

        wholes = [high.detach().float() for high in self._high]
        torch._foreach_add_(wholes, [rest.float() for rest in self._rest])
        for parameter, whole, high in zip(self.whole.values(), wholes, self._high, strict=True):
            parameter.data = whole
            parameter.grad = None if high.grad is None else high.grad.float()
            high.grad = None

    def split(self) -> None:
        """Put the fp32 weights back into halves, the high one rounded to nearest."""
        import torch

        with torch.no_grad():
            wholes = [whole.data for whole in self.whole.values()]
            torch._foreach_copy_(self._high, wholes)
            torch._foreach_sub_(wholes, [high.float() for high in self._high])
            torch._foreach_copy_(self._rest, wholes)
        self.release()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the rests themselves, named `rest/PARAMETER`."""
        return {f"{_REST}{name}": rest for name, rest in zip(self._names, self._rest, strict=True)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` returned."""
        for name, rest in zip(self._names, self._rest, strict=True):
            rest.copy_(tensors[f"{_REST}{name}"])


def take_rests(
    tensors: dict[str, torch.Tensor], parameters: NamedParameters, halves: Halves | None
) -> None:
    """Take the rests out of a checkpoint's tensors: into halves, or into weights kept in fp32."""
    import torch

    rests = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_REST)}
    if halves is not None:
        halves.restore(rests)
        return
    with torch.no_grad():
        for name, rest in rests.items():
            parameter = parameters[name.removeprefix(_REST)]
            parameter.add_(rest.to(parameter.device))
