"""Tensors that may be parts of a whole (torch's DTensor), without importing torch for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


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
