"""Tensors that may be parts of a whole (torch's DTensor), without importing torch for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def by_mesh(parameters: Sequence[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Group parameters by the ranks that share them: one operation takes those of one mesh."""
    groups: dict[Any, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    return list(groups.values())


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a tensor whose parts are on several ranks; all of them must call it."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a tensor, sharing its memory."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def united_model(
    trained: Mapping[str, torch.Tensor], build: Callable[[], PreTrainedModel | PeftModel] | None
) -> PreTrainedModel | PeftModel | None:
    """Gather what ranks hold parts of into a whole model; all ranks must call it.

    Args:
        trained: parameters and buffers by name, each rank its parts.
        build: makes the model as it was before training; None on ranks that keep no whole one.
    """
    import torch

    model = build() if build else None
    names = dict(model.named_parameters()) | dict(model.named_buffers()) if model else {}
    with torch.no_grad():
        for name, tensor in trained.items():
            united = whole(tensor.detach())
            if name in names:
                names[name].copy_(united)
    return model
