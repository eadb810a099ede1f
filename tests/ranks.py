"""The engine on gloo ranks, each a process of its own, in fp64 and without dropout."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing

from kovar.data import TokenizedDataset
from kovar.models import build_for_training, check_folder
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.engine import Engine
from kovar.training.method import Full, Lora, apply_method
from kovar.training.tasks import TASKS, Collated, TextClassification

FULL = Full()
FP64 = ResolvedPrecision("fp32", "float64", False, False, "test")


class WeighedByLength(TextClassification):
    """Every token of a row is a target: micro-batches and ranks have unlike numbers of them."""

    def num_targets(self, split: Any, rows: Any) -> None:
        """Let the ranks find out by themselves."""

    def collate(self, split: Any, rows: Any, length: int, **options: Any) -> Collated:
        found = super().collate(split, rows, length, **options)
        lengths = split.lengths[rows].astype(np.int64)
        targets = np.stack([found.targets, lengths], axis=1)
        return Collated(found.inputs, targets, num_targets=int(lengths.sum()))

    def loss(self, outputs: Any, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        each = torch.nn.functional.cross_entropy(outputs.logits, targets[:, 0], reduction="none")
        return (each * targets[:, 1]).sum()


@dataclass(frozen=True)
class Case:
    """What is trained."""

    base: Path
    dataset: Path
    settings: TrainingSettings
    weighed: bool = False
    method: Full | Lora = FULL


def train(case: Case, rank: int = 0, world_size: int = 1) -> dict[str, np.ndarray]:
    """Take every step on one rank, and return the weights."""
    base = check_folder(case.base, source="tiny")
    dataset = TokenizedDataset.load(case.dataset)
    torch.manual_seed(0)
    engine = Engine(
        apply_method(
            build_for_training(base, labels=dataset.labels, dropout=0.0), case.method
        ).double(),
        dataset,
        task=WeighedByLength() if case.weighed else TASKS["text-classification"],
        settings=case.settings,
        precision=FP64,
        device=torch.device("cpu"),
        report=lambda event, **fields: None,
        rank=rank,
        world_size=world_size,
    )
    for planned in engine.steps:
        engine.step(engine.feed.prepare(planned), planned.learning_rate)
    return {name: p.detach().numpy().copy() for name, p in engine.parameters.items()}


def train_on_ranks(case: Case, *, world_size: int, folder: Path) -> dict[str, np.ndarray]:
    """Train on several ranks; return rank 0's weights."""
    context = torch.multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    store = folder / f"store-{world_size}"
    ranks = [
        context.Process(target=_one_rank, args=(case, rank, world_size, str(store), answers))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    weights = None
    while weights is None and any(process.is_alive() for process in ranks):
        try:
            weights = answers.get(timeout=1)
        except queue.Empty:
            continue
    for process in ranks:
        process.join()
    assert weights is not None, [process.exitcode for process in ranks]
    return weights


def _one_rank(case: Case, rank: int, world_size: int, store: str, answers: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
    )
    weights = train(case, rank, world_size)
    if rank == 0:
        answers.put(weights)
    torch.distributed.destroy_process_group()
