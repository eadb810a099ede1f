"""Text classification that breaks on purpose: broken rows, a broken precision, a small memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing

from kovar.training.task import WorkerTask
from kovar.training.tasks import TASKS, Collated, TextClassification
from kovar.training.worker import execute


class WithRows(TextClassification):
    """Targets carry their row numbers, so that a loss can tell which batch it is of."""

    def collate(self, split: Any, rows: Any, length: int, **options: Any) -> Collated:
        found = super().collate(split, rows, length, **options)
        targets = np.stack([found.targets, rows], axis=1)
        return Collated(found.inputs, targets, num_targets=found.num_targets)

    def loss(self, outputs: Any, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        return super().loss(outputs, targets[:, 0], **options)


class BrokenRows(WithRows):
    """Some rows make the loss NaN whenever they are trained on."""

    def __init__(self, *rows: int) -> None:
        self.rows = torch.tensor(rows)

    def loss(self, outputs: Any, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        found = super().loss(outputs, targets, **options)
        is_broken = torch.isin(targets[:, 1], self.rows).any() and torch.is_grad_enabled()
        return found * float("nan") if is_broken else found


class BrokenBelow(TextClassification):
    """In bf16 every loss below a bound is infinite: what was learned is what breaks it."""

    def __init__(self, bound: float, *, stop_in_fp32: bool = False) -> None:
        self.bound = bound
        self.stop_after = 6 if stop_in_fp32 else None

    def loss(self, outputs: Any, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        found = super().loss(outputs, targets, **options)
        if not torch.is_grad_enabled():
            return found
        if outputs.logits.dtype == torch.bfloat16:
            return found / 0 if found.item() / len(targets) < self.bound else found
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after == 0:
                raise KeyboardInterrupt
        return found


class SmallMemory(TextClassification):
    """A pass over more than some rows fails as an allocator does, in training or anywhere."""

    def __init__(self, num_rows: int, *, everywhere: bool = False, cpu: bool = False) -> None:
        self.num_rows = num_rows
        self.everywhere = everywhere
        self.cpu = cpu

    def loss(self, outputs: Any, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        if len(targets) > self.num_rows and (self.everywhere or torch.is_grad_enabled()):
            if self.cpu:
                torch.empty(1 << 50)
            raise torch.OutOfMemoryError("out of memory")
        return super().loss(outputs, targets, **options)


class FullMemory(TextClassification):
    """After the two passes of the rehearsal not even one row fits."""

    num_passes = 0

    def loss(self, outputs: Any, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        self.num_passes += 1
        if self.num_passes > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().loss(outputs, targets, **options)


def attempt_broken(task: WorkerTask, store: Path, broken: Sequence[Any]) -> list[int]:
    """Run a rank for each task that breaks, once; return their exit codes."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["broken", "transformers", "torch.optim"])
    ranks = [
        context.Process(target=_run_broken, args=(task, str(store), rank, len(broken), how))
        for rank, how in enumerate(broken)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return [process.exitcode for process in ranks]


def _run_broken(task: WorkerTask, store: str, rank: int, world_size: int, how: Any) -> None:
    tasks: Any = TASKS
    tasks["text-classification"] = how
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
    )
    execute(task, device=torch.device("cpu"), rank=rank, world_size=world_size)
