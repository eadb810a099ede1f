"""How the ranks of a run work on one model: what they exchange, and when.

A single rank exchanges nothing and pays nothing. Here every rank holds the whole model; ranks that
hold parts of it are in sharded.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from kovar.training.parallel.settings import DDP, Ddp, ParallelismSettings

if TYPE_CHECKING:
    import torch

    from kovar.precision import ResolvedPrecision


class Parallel:
    """One rank among all; above one rank the default process group must exist.

    Args:
        rank: this process's rank.
        world_size: number of ranks.
        device: where tensors that are exchanged live.
        settings: how gradients travel.

    Attributes:
        data_rank: which share of every batch this rank computes.
        data_size: number of such shares.
        gradient_scale: what a loss is multiplied by so that exchanged gradients are sums.
        in_step: whether all ranks must call the model equally often, in evaluations too.
    """

    def __init__(
        self, rank: int, world_size: int, device: torch.device, *, settings: Ddp = DDP
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.data_rank = rank
        self.data_size = world_size
        self.gradient_scale = world_size
        self.in_step = False
        self._settings = settings

    @property
    def is_main(self) -> bool:
        """Whether this rank reports and saves."""
        return self.rank == 0

    def place(self, model: torch.nn.Module, precision: ResolvedPrecision) -> None:
        """Move this rank's part of the model to the device, before an optimizer sees it."""
        model.to(self.device)

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the module to call in training; its backward pass averages gradients over ranks.

        The last buckets of gradients travel while the first layers still compute.
        """
        if self.world_size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        wrapped = DistributedDataParallel(
            model, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        if self._settings.gradient_compression == "bf16":
            from kovar.training.parallel.compression import average_in_bf16

            wrapped.register_comm_hook(self.world_size, average_in_bf16)
        return wrapped

    @property
    def orders_gradients(self) -> bool:
        """Whether the first two passes decide in which order gradients are summed.

        DDP fills its buckets in the order in which the first backward pass found the gradients.
        Three or more ranks add a number up in an order that its place in a bucket decides, so a
        run that goes on must have had these passes before its first step.
        """
        return self.world_size > 1

    def accumulating(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """Keep gradients on this rank while the block runs: more micro-batches follow."""
        if self.world_size == 1:
            return nullcontext()
        wrapped: Any = model
        no_sync: AbstractContextManager[None] = wrapped.no_sync()
        return no_sync

    def clip(
        self, parameters: Sequence[torch.nn.Parameter], max_gradient_norm: float
    ) -> torch.Tensor:
        """Scale gradients whose L2 norm is above the limit; return the norm before."""
        import torch
        from torch.nn.utils import clip_grads_with_norm_, get_total_norm

        norm: torch.Tensor = get_total_norm([p.grad for p in parameters if p.grad is not None])
        # Scaled by NaN, rows that no token touched would be NaN too, and on a CPU tables keep the
        # memory of their gradients (models/embedding.py).
        if norm.device.type != "cpu" or bool(torch.isfinite(norm)):
            clip_grads_with_norm_(parameters, max_gradient_norm, norm)
        return norm

    @contextmanager
    def scoring(self, model: torch.nn.Module, *, inference: bool = True) -> Iterator[None]:
        """Call the model without gradients while the block runs.

        Args:
            model: is put into evaluation mode.
            inference: whether its layers compute in torch's inference mode.
        """
        import torch

        model.eval()
        with torch.inference_mode() if inference else torch.no_grad():
            yield

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over the shares of the data, and return it."""
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)
        return tensor

    def adding_up(self, number: int) -> Callable[[], torch.Tensor]:
        """Begin to add up every share's number; call what is returned for the sum.

        The numbers travel while the caller computes. The sum stays on the device: a GPU's work is
        queued behind it, and the host does not wait.
        """
        import torch
        import torch.distributed

        # Filled on the device: a copy to it would wait for all that is queued.
        tensor = torch.full((), number, dtype=torch.int64, device=self.device)
        if self.world_size == 1:
            return lambda: tensor
        self._leave_to_one(tensor)
        work: Any = torch.distributed.all_reduce(tensor, async_op=True)

        def arrived() -> torch.Tensor:
            work.wait()
            return tensor

        return arrived

    def _leave_to_one(self, tensor: torch.Tensor) -> None:
        """Set a number to zero where another rank of the same share counts it."""

    def anywhere(self, fact: bool) -> bool:
        """Return whether something is so on any rank."""
        if self.world_size == 1:
            return fact
        import torch
        import torch.distributed

        flag = torch.tensor(int(fact), dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(flag)
        return int(flag) > 0

    def least(self, number: int) -> int:
        """Return the smallest of every rank's number."""
        if self.world_size == 1:
            return number
        import torch
        import torch.distributed

        tensor = torch.tensor(number, dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MIN)
        return int(tensor)

    def from_main(self, number: int) -> int:
        """Return rank 0's number on every rank."""
        if self.world_size == 1:
            return number
        import torch
        import torch.distributed

        tensor = torch.tensor(number, dtype=torch.int64, device=self.device)
        torch.distributed.broadcast(tensor, src=0)
        return int(tensor)

    def text_from_main(self, text: str) -> str:
        """Return rank 0's text on every rank."""
        if self.world_size == 1:
            return text
        import torch.distributed

        told: list[Any] = [text]
        torch.distributed.broadcast_object_list(told, src=0, device=self.device)
        return str(told[0])


def parallel_of(
    settings: ParallelismSettings, rank: int, world_size: int, device: torch.device
) -> Parallel:
    """Return how a rank works with the others; one alone holds the whole model in any case."""
    if isinstance(settings, Ddp):
        return Parallel(rank, world_size, device, settings=settings)
    if world_size == 1:
        return Parallel(rank, world_size, device)
    from kovar.training.parallel.sharded import ShardedParallel

    return ShardedParallel(rank, world_size, device, settings=settings)
