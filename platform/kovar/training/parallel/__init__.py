"""How the workers of a run share one model: its settings, and what ranks exchange."""

from kovar.training.parallel.blocks import transformer_blocks
from kovar.training.parallel.ranks import Parallel, parallel_of
from kovar.training.parallel.settings import (
    DDP,
    Ddp,
    Fsdp,
    ParallelismSettings,
    TensorParallel,
    check_parallelism,
    check_tensor_plan,
    num_shards,
    num_shares,
    tensor_size,
)
from kovar.training.parallel.tensors import by_mesh, local, united_model, whole

__all__ = [
    "DDP",
    "Ddp",
    "Fsdp",
    "Parallel",
    "ParallelismSettings",
    "TensorParallel",
    "by_mesh",
    "check_parallelism",
    "check_tensor_plan",
    "local",
    "num_shards",
    "num_shares",
    "parallel_of",
    "tensor_size",
    "transformer_blocks",
    "united_model",
    "whole",
]
