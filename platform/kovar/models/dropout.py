"""Dropout on CPUs: masks of 16-bit integers, several times as fast to draw as torch's own.

torch draws a 64-bit double for each element, which took a tenth of a training step of MiniLM; its
fused attention computes no dropout on a CPU, and the way round it checks every row for -inf.
Here one 64-bit integer makes four elements. A probability is a multiple of 1/65,536, and what is
kept is divided by the true share, so the mean stays exact.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

ATTENTION: Final = "kovar_cpu"
"""Name of the attention, as transformers knows it."""

_LEVELS: Final = 1 << 16


def quicken_dropout(model: torch.nn.Module) -> None:
    """Let a model that is trained on a CPU draw its dropout masks fast; evaluation is untouched.

    Attention is replaced where the model uses `sdpa`. The model's parameters, buffers and names
    stay as they are, so its checkpoints and saved files do, too.
    """
    from torch import nn

    quick = _dropout_module()
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = quick
    if getattr(getattr(model, "config", None), "_attn_implementation", None) == "sdpa":
        _register_attention()
        choose: Any = model.set_attn_implementation
        choose(ATTENTION)


def dropped(values: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero elements at random and scale up the others; draws from torch's generator.

    Args:
        values: of any shape.
        probability: of an element to become zero, 0 < p < 1.
    """
    result: torch.Tensor = _dropout_function().apply(values, probability)
    return result


def _kept(shape: torch.Size, threshold: int) -> torch.Tensor:
    """Draw which elements stay: bool of this shape."""
    import torch

    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return words.view(torch.int16)[:count].view(shape) >= threshold - _LEVELS // 2


@cache
def _dropout_function() -> Any:
    """Define the function when torch is there."""
    import torch

    class Dropped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: torch.Tensor, probability: float) -> torch.Tensor:
            threshold = min(_LEVELS - 1, round(probability * _LEVELS))
            kept = _kept(values.shape, threshold)
            ctx.save_for_backward(kept)
            ctx.scale = _LEVELS / (_LEVELS - threshold)
            return (values * kept).mul_(ctx.scale)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
            (kept,) = ctx.saved_tensors
            return (gradients[0] * kept).mul_(ctx.scale), None

    return Dropped


@cache
def _dropout_module() -> type[torch.nn.Dropout]:
    from torch import nn

    class QuickDropout(nn.Dropout):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return dropped(input, self.p) if self.training and self.p > 0 else input

    return QuickDropout


@cache
def _register_attention() -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        special = any(options.get(name) is not None for name in ("position_bias", "softcap"))
        plain = query.shape == key.shape and not special
        if dropout == 0.0 or (causal and attention_mask is None) or not plain:
            found: tuple[torch.Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask,
                dropout=dropout, scaling=scaling, is_causal=is_causal, **options,
            )  # fmt: skip
            return found
        return _attended(query, key, value, attention_mask, dropout, scaling), None

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    probability: float,
    scaling: float | None,
) -> torch.Tensor:
    """Return attention of shape (rows, length, heads, size) of (rows, heads, length, size)."""
    import torch

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    *outer, length, size = query.shape
    queries, keys = (each.reshape(-1, length, size) for each in (query, key))
    nothing = queries.new_empty(1, 1, 1)
    # The product scales for nothing; multiplying queries would be a pass of its own.
    scores = torch.baddbmm(nothing, queries, keys.transpose(1, 2), beta=0, alpha=scale)
    scores = scores.view(*outer, length, length)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    precise = torch.float32 if scores.element_size() < 4 else scores.dtype
    weights = torch.softmax(scores, dim=-1, dtype=precise).to(scores.dtype)
    return torch.matmul(dropped(weights, probability), value).transpose(1, 2).contiguous()
