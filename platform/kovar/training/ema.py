"""An exponential moving average of the weights: steadier than the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kovar.training.parallel import local

if TYPE_CHECKING:
    import torch

    from kovar.training.optimizer import NamedParameters


class Ema:
    """The average of trained parameters over the steps.

    Early steps count more than `decay` says, so that a short run is not an average with its first
    weights: the decay of step t is at most (1 + t) / (10 + t).

    Args:
        parameters: those that are trained.
        decay: share of the average that a step keeps, in the long run.
    """

    def __init__(self, parameters: NamedParameters, decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self._average = {name: p.detach().clone() for name, p in parameters.items()}

    def update(self, step: int) -> None:
        """Take the weights after a step (from 1) into the average."""
        import torch

        decay = min(self._decay, (1 + step) / (10 + step))
        live = [local(parameter.detach()) for parameter in self._parameters.values()]
        mean = [local(average) for average in self._average.values()]
        torch._foreach_lerp_(mean, live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model while the block runs."""
        live = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.apply()
        try:
            yield
        finally:
            self._fill(live)

    def apply(self) -> None:
        """Put the average into the model for good."""
        self._fill(self._average)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the average itself, named `ema/PARAMETER`."""
        return {f"ema/{name}": tensor for name, tensor in self._average.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `tensors` returned."""
        for name, average in self._average.items():
            average.copy_(tensors[f"ema/{name}"])

    def _fill(self, values: Mapping[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(values[name])
