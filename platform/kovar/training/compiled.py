"""Transformer blocks compiled by torch: one graph for each padded length, whatever the rows.

The blocks of a model run the same code, so one graph serves all of them; what lies around them is
small and stays as it is. Lengths come from a short ladder (kovar.data.batches), so graphs are few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import RunError
from kovar.training.parallel import transformer_blocks

if TYPE_CHECKING:
    import torch

    from kovar.training.feed import MicroBatch
    from kovar.training.schedule import PlannedStep

MAX_GRAPHS: Final = 1024
"""More than any ladder has: beyond its own limit of 8, torch would go on uncompiled."""


class Compiled:
    """Compiles a model's blocks in place, when they are first called with a length.

    Args:
        model: before its weights are cut or wrapped.
        backend: as torch names it.
    """

    def __init__(self, model: torch.nn.Module, *, backend: str = "inductor") -> None:
        import torch._dynamo

        torch._dynamo.config.recompile_limit = MAX_GRAPHS
        torch._dynamo.config.accumulated_recompile_limit = MAX_GRAPHS
        self._since = self._seconds = 0.0
        for block in transformer_blocks(model):
            block.forward = _any_rows(torch.compile(block.forward, backend=backend, dynamic=False))

    def _begin(self, _: Any) -> None:
        self._since = time.perf_counter()

    def _end(self, _: Any) -> None:
        self._seconds += time.perf_counter() - self._since

    def take_seconds(self) -> float:
        """Return how long compiling took since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def forget(self) -> None:
        """Drop all graphs: those that come next are made for the shapes that come next."""
        import torch._dynamo

        torch._dynamo.reset()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the seconds of compiling while the block runs.

        Raises:
            RunError: torch could not compile the model.
        """
        from torch._dynamo.callback import callback_handler
        from torch._dynamo.exc import TorchDynamoException

        callback_handler.register_start_callback(self._begin)
        callback_handler.register_end_callback(self._end)
        try:
            yield
        except TorchDynamoException as problem:
            raise RunError(
                f"the model could not be compiled: {str(problem).strip().splitlines()[0]}",
                hint="set training.compile: false; on a CPU torch needs a C++ compiler (g++)",
            ) from problem
        finally:
            callback_handler.remove_start_callback(self._begin)
            callback_handler.remove_end_callback(self._end)


def _any_rows(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def called(hidden: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        _free_rows((hidden, arguments, named.values()), hidden.shape[0])
        return forward(hidden, *arguments, **named)

    return called


def _free_rows(values: Iterable[Any], num_rows: int) -> None:
    """Say that the first dimension of these tensors varies; torch has graphs of their own for 1."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            if num_rows > 1 and value.ndim and value.shape[0] == num_rows:
                torch._dynamo.mark_dynamic(value, 0)
        elif isinstance(value, Iterable):
            _free_rows(value, num_rows)


def widest_steps(steps: Sequence[PlannedStep]) -> list[PlannedStep]:
    """Return the step with the most rows of each padded length, shorter lengths first.

    A graph is made for the shape that comes first. These come first in every attempt, so that a
    run which goes on computes with the graphs that it began with.
    """
    widest: dict[int, PlannedStep] = {}
    for step in steps:
        known = widest.get(step.batch.length)
        if known is None or len(step.batch.rows) > len(known.batch.rows):
            widest[step.batch.length] = step
    return [widest[length] for length in sorted(widest)]


def with_and_without_padding(micro_batch: MicroBatch) -> Iterator[MicroBatch]:
    """Yield a micro-batch twice: rows without padding take another way through attention."""
    mask = micro_batch.inputs.get("attention_mask")
    if mask is None:
        yield micro_batch
        return
    padded = mask.clone()
    padded[:, -1] = 0
    for changed in (mask.new_ones(mask.shape), padded):
        yield replace(micro_batch, inputs=micro_batch.inputs | {"attention_mask": changed})
