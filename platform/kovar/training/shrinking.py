"""A pass that does not fit into the memory: the micro-batch is halved, the batch stays whole.

Gradients add up until the global batch is done, so what a batch teaches does not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kovar.errors import OutOfMemoryError

if TYPE_CHECKING:
    from kovar.data import TokenizedDataset
    from kovar.training.feed import StepBatch

_SIGNS: Final = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory")


class PassTooLargeError(Exception):
    """A forward or backward pass ran out of memory before any weight had moved."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed: on a GPU, or on a CPU, which has no error of its own."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def free_cached(device_type: str) -> None:
    """Give back what a failed pass left in the allocator."""
    import gc

    import torch

    gc.collect()
    if device_type == "cuda":
        torch.cuda.empty_cache()


def half_of(limit: int, dataset: TokenizedDataset) -> int:
    """Return half the padded tokens of a batch of the evaluation.

    Raises:
        OutOfMemoryError: the longest row takes all of it already.
    """
    longest = int(dataset.open("evaluation").lengths.max())
    if limit < 2 * longest:
        raise too_large(f"the evaluation: one row of {longest} tokens")
    return limit // 2


def halved(batch: StepBatch) -> int:
    """Return half the padded tokens of the longest pass over a batch.

    Raises:
        OutOfMemoryError: a pass holds one row already.
    """
    num_rows, length = batch.rows_per_pass, batch.planned.batch.longest
    if num_rows <= 1:
        raise too_large(f"step {batch.planned.step}: one row of {length} tokens")
    return num_rows // 2 * length


def too_large(what: str) -> OutOfMemoryError:
    """Return the error that ends a run whose smallest pass does not fit."""
    return OutOfMemoryError(
        f"{what} does not pass through the model in the memory of this worker",
        hint="lower data.max_length, set training.gradient_checkpointing: true or method: lora, "
        "or ask for more memory",
        of_one_rank=True,
    )
