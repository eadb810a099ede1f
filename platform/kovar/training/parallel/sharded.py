"""Ranks that hold parts of one model: FSDP2, tensor parallelism, and a grid of both.

Weights become `DTensor`s: tensors that know which part of the whole a rank holds. On a grid a row
of ranks computes each layer together (the same rows of a batch), and the weights are cut over the
columns, which compute different rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from kovar.training.parallel.blocks import transformer_blocks
from kovar.training.parallel.ranks import Parallel
from kovar.training.parallel.settings import Fsdp, TensorParallel, tensor_size
from kovar.training.parallel.tensors import by_mesh, whole

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh

    from kovar.precision import ResolvedPrecision

DATA, TENSOR = "data", "tensor"


class ShardedParallel(Parallel):
    """One rank of a grid of (shares of the data) × (ranks that compute each layer together)."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        device: torch.device,
        *,
        settings: Fsdp | TensorParallel,
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        super().__init__(rank, world_size, device)
        self._tensor_size = tensor_size(settings, world_size)
        self._reshard = settings.reshard if isinstance(settings, Fsdp) else True
        self.data_rank, self._tensor_rank = divmod(rank, self._tensor_size)
        self.data_size = world_size // self._tensor_size
        # Gradients are summed as they are: an average would be rounded.
        self.gradient_scale = 1
        self.in_step = True
        self._mesh: DeviceMesh = init_device_mesh(
            device.type, (self.data_size, self._tensor_size), mesh_dim_names=(DATA, TENSOR)
        )
        if self.data_size > 1 and self._tensor_size > 1:
            # Norms are summed over the grid at once: one row after the other, ranks would round
            # them differently.
            self._mesh._flatten("grid")

    def place(self, model: torch.nn.Module, precision: ResolvedPrecision) -> None:
        """Keep this rank's part of every weight, on the device."""
        if self._tensor_size > 1:
            self._split_layers(model)
        if self.data_size > 1:
            self._shard(model, precision)
        else:
            model.to(self.device)

    def _split_layers(self, model: torch.nn.Module) -> None:
        """Cut matrices as the model's own plan says."""
        from transformers.distributed.tensor_parallel import apply_tensor_parallelism

        whole: Any = model
        plan = dict(_expanded(model, whole.tp_plan or {}))
        apply_tensor_parallelism(model, self._mesh[TENSOR], plan)
        # An embedding that is the last layer, too, was cut under its first name alone.
        whole.tie_weights()

    def _shard(self, model: torch.nn.Module, precision: ResolvedPrecision) -> None:
        import torch
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy()
        if precision.autocast:
            # Weights travel in the type that they are multiplied in, gradients in fp32.
            policy = MixedPrecisionPolicy(
                param_dtype=precision.torch_dtype, reduce_dtype=torch.float32
            )
        for module in (*transformer_blocks(model), model):
            sharded: Any = fully_shard(
                module,
                mesh=self._mesh[DATA],
                mp_policy=policy,
                # The outermost weights are needed again as soon as the backward pass begins.
                reshard_after_forward=self._reshard and module is not model,
            )
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the model itself: its weights know how they are exchanged."""
        return model

    @property
    def orders_gradients(self) -> bool:
        """Each block's gradients are summed in an order of their own from the start."""
        return False

    def accumulating(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """Exchange gradients after every micro-batch: whole ones would not fit where parts do."""
        return nullcontext()

    def clip(
        self, parameters: Sequence[torch.nn.Parameter], max_gradient_norm: float
    ) -> torch.Tensor:
        """Scale gradients whose L2 norm over all parts is above the limit; return the norm."""
        import torch
        from torch.nn.utils import clip_grads_with_norm_, get_total_norm

        groups = by_mesh(parameters)
        norms = [
            whole(get_total_norm([p.grad for p in group if p.grad is not None])) for group in groups
        ]
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
        for group in groups:
            clip_grads_with_norm_(group, max_gradient_norm, norm)
        return norm

    @contextmanager
    def scoring(self, model: torch.nn.Module, *, inference: bool = False) -> Iterator[None]:
        """Call the model without gradients; what was gathered for it is let go at the end."""
        import torch
        from torch.distributed.fsdp import FSDPModule

        model.eval()
        # Gathered weights outlive the block, and inference tensors cannot be trained with.
        with torch.no_grad():
            yield
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over the shares of the data, and return it.

        Ranks that compute a layer together know the same: one of them counts. So all ranks of the
        world receive the same bits.
        """
        import torch.distributed

        self._leave_to_one(tensor)
        torch.distributed.all_reduce(tensor)
        return tensor

    def _leave_to_one(self, tensor: torch.Tensor) -> None:
        if self._tensor_rank > 0:
            tensor.zero_()


def _expanded(model: torch.nn.Module, plan: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the style of each parameter before that of its module, for all layers of a plan."""
    from transformers.distributed.parallel_utils import replace_layer_number_by_wildcard

    names = dict(model.named_parameters())
    for name, module in model.named_modules():
        style = plan.get(replace_layer_number_by_wildcard(name))
        if style is None:
            continue
        for parameter, _ in module.named_parameters(recurse=False):
            if f"{name}.{parameter}" in names:
                yield f"{name}.{parameter}", style
        yield name, style
