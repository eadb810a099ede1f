"""One optimizer step: passes over micro-batches, then one clipped update.

Losses are sums over targets, divided once by the number of targets of the whole global batch. So
neither micro-batches nor ranks change the result, whatever the number of targets in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kovar.training.parallel import by_mesh, local
from kovar.training.shrinking import PassTooLargeError, is_out_of_memory

if TYPE_CHECKING:
    import torch

    from kovar.precision import ResolvedPrecision
    from kovar.training.feed import MicroBatch, StepBatch
    from kovar.training.halves import Halves
    from kovar.training.parallel import Parallel

Objective = Callable[[Any, "MicroBatch"], "torch.Tensor"]
"""From a model's outputs and the micro-batch to the loss, summed over its targets."""


def _one() -> int:
    """Return the targets of a pass that teaches nothing."""
    return 1


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step found; tensors stay on the device.

    Args:
        loss: summed over this rank's targets.
        gradient_norm: of the whole batch, before clipping.
        changed: whether the weights moved: not where a gradient is NaN or infinite.
        num_targets: of all ranks; a tensor where they had to be added up.
    """

    loss: torch.Tensor
    gradient_norm: torch.Tensor
    changed: torch.Tensor
    num_targets: int | torch.Tensor


class OptimizerStep:
    """Moves the weights by one global batch at a time.

    Args:
        model: called in training, as `Parallel.wrap` returned it.
        parameters: those that are trained.
        objective: the loss.
        optimizer: over `parameters`.
        parallel: the ranks.
        precision: of the passes.
        max_gradient_norm: gradients above this L2 norm are scaled down to it.
        seed: of dropout, with the step and the share of the batch.
        halves: where the weights are kept in bf16: `parameters` are their fp32 form.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        *,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        parallel: Parallel,
        precision: ResolvedPrecision,
        max_gradient_norm: float,
        seed: int,
        halves: Halves | None = None,
    ) -> None:
        import torch

        self._model = model
        self._parameters = parameters
        self._objective = objective
        self._optimizer = optimizer
        self._parallel = parallel
        self._precision = precision
        self._max_gradient_norm = max_gradient_norm
        self._seed = seed
        self._halves = halves
        self.scaler = torch.amp.GradScaler(parallel.device.type, enabled=precision.scaler)
        self.learning_rate = 0.0

    def __call__(self, batch: StepBatch, learning_rate: float) -> StepOutcome:
        """Compute the gradient of a global batch and update the weights."""
        import torch

        sum_up = None if batch.is_global else self._parallel.adding_up(batch.num_targets)
        # Masked, since torch takes 64 bits at most.
        mixed = (self._seed * 1_000_003 + batch.planned.step) * 65_537 + self._parallel.data_rank
        torch.manual_seed(mixed & ((1 << 63) - 1))
        self._model.train()
        with self._within_memory():
            loss = self._passes(batch, sum_up)
        norm = self._update(learning_rate)
        num_targets = sum_up() if sum_up else batch.num_targets
        return StepOutcome(loss, norm, torch.isfinite(norm), num_targets)

    @contextmanager
    def _within_memory(self) -> Iterator[None]:
        """Tell a pass that does not fit from other errors, and drop the gradients it has left."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._optimizer.zero_grad()
            self._model.zero_grad()
            raise PassTooLargeError(str(error)) from error

    def _passes(self, batch: StepBatch, sum_up: Callable[[], torch.Tensor] | None) -> torch.Tensor:
        """Add up the gradients of all micro-batches; return their summed loss.

        Args:
            batch: this rank's part.
            sum_up: waits for the targets of all ranks; None where the batch knows them.
        """
        import torch

        def num_targets() -> int | torch.Tensor:
            return sum_up().clamp(min=1) if sum_up else max(1, batch.num_targets)

        loss = torch.zeros((), device=self._parallel.device)
        for micro_batch in batch.micro_batches[:-1]:
            with self._parallel.accumulating(self._model):
                loss += self._backward(micro_batch, num_targets)
        loss += self._backward(batch.micro_batches[-1], num_targets)
        return loss

    def rehearse(self, micro_batch: MicroBatch) -> None:
        """Take two passes that teach nothing; what they settle is the same in every attempt.

        Raises:
            PassTooLargeError: they do not fit into the memory.
        """
        self._model.train()
        with self._within_memory():
            for _ in range(2):
                self._backward(micro_batch, _one)
        # Not the optimizer's, whose weights may be others (halves.py).
        self._model.zero_grad()

    def _backward(
        self, micro_batch: MicroBatch, num_targets: Callable[[], int | torch.Tensor]
    ) -> torch.Tensor:
        """Add the gradient of one micro-batch; return its summed loss.

        Args:
            micro_batch: what passes.
            num_targets: of the whole batch, at least 1; asked for after the forward pass.
        """
        import torch

        micro_batch = micro_batch.to(self._parallel.device)
        with self.autocast():
            outputs = self._model(**micro_batch.arguments)
        loss = micro_batch.weight * self._objective(outputs, micro_batch)
        # The true mean divides by the targets of all ranks, however they exchange gradients.
        mean = loss * self._parallel.gradient_scale / num_targets()
        torch.autograd.backward(self.scaler.scale(mean))
        return loss.detach()

    def _update(self, learning_rate: float) -> torch.Tensor:
        """Clip the gradient and move the weights, unless it is not finite; return its norm."""
        self.learning_rate = learning_rate
        if self._halves is not None:
            self._halves.join()
        self.scaler.unscale_(self._optimizer)
        norm = self._parallel.clip(self._parameters, self._max_gradient_norm).detach()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if self._precision.scaler:
            # The scaler skips a step whose gradients overflow, and lowers its scale.
            self.scaler.step(self._optimizer)
            self.scaler.update()
        else:
            self._step_if_finite(norm)
        self._optimizer.zero_grad()
        if self._halves is not None:
            self._halves.split()
        return norm

    def _step_if_finite(self, norm: torch.Tensor) -> None:
        """Skip a step that would spoil every weight, without waiting for the device."""
        import torch

        optimizer: Any = self._optimizer
        # Fused kernels read a flag on the device. The first step makes the optimizer's state, part
        # of which a kernel that is told to skip would leave unwritten.
        has_flag = getattr(optimizer, "_step_supports_amp_scaling", False) and optimizer.state
        if norm.device.type == "cpu" or not has_flag:
            if bool(torch.isfinite(norm)):
                optimizer.step()
            return
        optimizer.found_inf = (~torch.isfinite(norm)).float()
        optimizer.step()

    def probe(self, micro_batch: MicroBatch) -> None:
        """Make a pass over a micro-batch that leaves nothing but gradients.

        Raises:
            PassTooLargeError: it does not fit into the memory.
        """
        self._model.train()
        with self._within_memory(), self._parallel.accumulating(self._model):
            self._backward(micro_batch, _one)

    def probe_state(self) -> int:
        """Return the bytes of the optimizer's state; drop what a probe has left."""
        import torch

        had_state = bool(self._optimizer.state)
        if not had_state:
            self._make_state()
        size = sum(
            local(value).nbytes
            for state in self._optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
        if not had_state:
            self._optimizer.state.clear()
        self._optimizer.zero_grad()
        self._model.zero_grad()
        return size

    def _make_state(self) -> None:
        """Take a step of no gradient at no rate: weights stay as they are."""
        import torch

        if self._halves is not None:
            self._halves.join()
        for some in by_mesh(self._parameters):
            torch._foreach_zero_([p.grad for p in some if p.grad is not None])
        rates = [group["lr"] for group in self._optimizer.param_groups]
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0
        self._optimizer.step()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if self._halves is not None:
            self._halves.split()

    def autocast(self) -> AbstractContextManager[Any]:
        """Cast operations as the precision says while the block runs."""
        import torch

        if not self._precision.autocast:
            return nullcontext()
        return torch.autocast(self._parallel.device.type, dtype=self._precision.autocast_dtype)
