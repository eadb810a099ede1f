"""Gradients that travel in fewer bytes; imported only where torch is at work.

Its annotations are read by torch, which does not know those of `from __future__`.
"""

from typing import Any

import torch
import torch.distributed


def average_in_bf16(
    world_size: int,
    bucket: torch.distributed.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket in half of its bytes; torch's own hook refuses CPUs, and divides in bf16.

    Args:
        world_size: number of ranks.
        bucket: gradients that travel together.
    """
    gradients = bucket.buffer()
    sent = gradients.to(torch.bfloat16)
    work: Any = torch.distributed.all_reduce(sent, async_op=True)

    def receive(_: Any) -> torch.Tensor:
        averaged: torch.Tensor = gradients.copy_(sent).div_(world_size)
        return averaged

    received: torch.futures.Future[torch.Tensor] = work.get_future().then(receive)
    return received
