"""What moves the weights: its settings, its construction, and its state for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind
from kovar.errors import MissingExtraError
from kovar.training.parallel import by_mesh

if TYPE_CHECKING:
    import torch

    from kovar.training.spec import TrainingSettings

NamedParameters = Mapping[str, "torch.nn.Parameter"]
"""The parameters that are trained, in the order of the model."""


class AdamW(Config):
    """Adam with decoupled weight decay (arXiv 1711.05101), in one fused kernel."""

    kind: Literal["adamw"] = Field(default="adamw", description="names this optimizer")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the mean of squares")
    epsilon: float = Field(default=1e-8, gt=0, description="added to the root of the squares")


class AdamW8bit(AdamW):
    """AdamW whose state takes 8 bits a number (arXiv 2110.02861), through bitsandbytes."""

    kind: Literal["adamw8bit"] = Field(  # type: ignore[assignment]
        default="adamw8bit", description="names this optimizer"
    )


class Adafactor(Config):
    """Squares of gradients kept as one row and one column a matrix (arXiv 1804.04235)."""

    kind: Literal["adafactor"] = Field(default="adafactor", description="names this optimizer")
    beta2_decay: float = Field(
        default=-0.8, lt=0, description="exponent with which the mean of squares slows down"
    )
    clip_threshold: float = Field(
        default=1.0, gt=0, description="largest root mean square of an update"
    )


class SGD(Config):
    """Stochastic gradient descent, in one fused kernel."""

    kind: Literal["sgd"] = Field(default="sgd", description="names this optimizer")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="share of the last update kept")
    nesterov: bool = Field(default=False, description="whether to look ahead by the momentum")


OptimizerSettings = Annotated[
    Annotated[AdamW | AdamW8bit | Adafactor | SGD, Field(discriminator="kind")],
    BeforeValidator(name_as_kind),
]


def build_optimizer(
    parameters: NamedParameters, settings: TrainingSettings
) -> torch.optim.Optimizer:
    """Build the optimizer; norms and biases (fewer than two dimensions) do not decay.

    Raises:
        MissingExtraError: 8-bit state without bitsandbytes.
    """
    import torch

    decayed = [p for p in parameters.values() if p.ndim >= 2]
    plain = [p for p in parameters.values() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": members, "weight_decay": decay}
        for some, decay in ((decayed, settings.weight_decay), (plain, 0.0))
        for members in by_mesh(some)
    ]
    rate, chosen = settings.learning_rate, settings.optimizer
    match chosen:
        case AdamW8bit():
            return _adamw8bit(groups, chosen, rate)
        case AdamW():
            betas = (chosen.beta1, chosen.beta2)
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=chosen.epsilon, fused=True)
        case Adafactor():
            return torch.optim.Adafactor(
                groups, lr=rate, beta2_decay=chosen.beta2_decay, d=chosen.clip_threshold
            )
        case SGD():
            return torch.optim.SGD(
                groups, lr=rate, momentum=chosen.momentum, nesterov=chosen.nesterov, fused=True
            )
        case _:
            assert_never(chosen)


def check_optimizer(settings: OptimizerSettings) -> None:
    """Refuse an optimizer whose library is not installed, without importing it.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    from importlib.util import find_spec

    if isinstance(settings, AdamW8bit) and find_spec("bitsandbytes") is None:
        raise MissingExtraError.of("bitsandbytes", needed_for="the optimizer adamw8bit")


def _adamw8bit(
    groups: list[dict[str, Any]], settings: AdamW8bit, rate: float
) -> torch.optim.Optimizer:
    check_optimizer(settings)
    from bitsandbytes import optim

    optimizer: torch.optim.Optimizer = optim.AdamW8bit(
        groups, lr=rate, betas=(settings.beta1, settings.beta2), eps=settings.epsilon
    )
    return optimizer


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: NamedParameters
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the state itself: tensors and plain numbers, each named `KEY/PARAMETER`."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{key}/{name}"] = value.detach()
            else:
                numbers[f"{key}/{name}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: NamedParameters,
    tensors: Mapping[str, torch.Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Put back the state that `optimizer_state` returned."""
    found: dict[str, dict[str, Any]] = {}
    for entry, value in (*tensors.items(), *numbers.items()):
        key, _, name = entry.partition("/")
        found.setdefault(name, {})[key] = value
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
