"""Linear layers that multiply in fp8, through torchao (arXiv 2209.05433).

Activations and weights are scaled per tensor to e4m3, gradients to e5m2, at every pass; weights,
and everything that is no matrix product, stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kovar.errors import MissingExtraError

if TYPE_CHECKING:
    import torch

MULTIPLE: Final = 16
"""Tensor cores take fp8 matrices whose sides are multiples of it; other layers stay in bf16."""


def check_fp8() -> None:
    """Refuse fp8 where torchao is not installed, without importing it.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec("torchao") is None:
        raise MissingExtraError.of("torchao", needed_for="precision: fp8")


def multiply_in_fp8(model: torch.nn.Module, *, emulate: bool = False) -> None:
    """Make the trained linear layers of a model multiply in fp8; names of weights stay.

    Args:
        model: changed in place.
        emulate: round to fp8 and multiply in a wider format, on chips without fp8 units.

    Raises:
        MissingExtraError: torchao is not installed.
    """
    check_fp8()
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(
        model,
        # The inner side of a weight's gradient is the number of tokens: any.
        config=Float8LinearConfig(emulate=emulate, pad_inner_dim=True),
        module_filter_fn=_is_eligible,
    )


def _is_eligible(module: Any, name: str) -> bool:
    """Leave out frozen layers, whose weights need no gradient, and heads with few outputs."""
    return bool(
        module.weight.requires_grad
        and module.in_features % MULTIPLE == 0
        and module.out_features % MULTIPLE == 0
    )
