"""What moves the weights, and its state as tensors for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from kovar.training.spec import TrainingSettings

NamedParameters = Mapping[str, "torch.nn.Parameter"]
"""The parameters that are trained, in the order of the model."""


def build_optimizer(
    parameters: NamedParameters, settings: TrainingSettings
) -> torch.optim.Optimizer:
    """Build the optimizer; norms and biases (fewer than two dimensions) do not decay."""
    import torch

    decayed = [p for p in parameters.values() if p.ndim >= 2]
    plain = [p for p in parameters.values() if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: NamedParameters
) -> dict[str, torch.Tensor]:
    """Return the state as tensors on the CPU, each named `KEY/PARAMETER`."""
    return {
        f"{key}/{name}": value.detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: NamedParameters,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Put back the state that `optimizer_tensors` returned."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for entry, tensor in tensors.items():
        key, _, name = entry.partition("/")
        found.setdefault(name, {})[key] = tensor
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    names = {id(parameter): name for name, parameter in parameters.items()}
    state = {
        number: found[names[id(parameter)]]
        for packed, group in zip(groups, optimizer.param_groups, strict=True)
        for number, parameter in zip(packed["params"], group["params"], strict=True)
        if names[id(parameter)] in found
    }
    # The optimizer itself knows which parts of its state belong on which device.
    optimizer.load_state_dict({"state": state, "param_groups": groups})
