"""The engine on gloo ranks, each a process of its own, in fp64 and without dropout."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from transformers import LlamaConfig, LlamaForSequenceClassification

from kovar.data import TokenizedDataset
from kovar.models import BuiltModel, build_for_training, check_folder
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.engine import Engine
from kovar.training.method import Full, Lora, apply_method
from kovar.training.parallel import DDP, ParallelismSettings, whole
from kovar.training.tasks import TASKS, Collated, TextClassification

FULL = Full()
FP64 = ResolvedPrecision("fp32", "float64", False, False, "test")
BF16 = ResolvedPrecision("bf16", "bfloat16", True, False, "test")
FP16 = ResolvedPrecision("fp16", "float16", True, True, "test")
FP32 = ResolvedPrecision("fp32", "float32", False, False, "test")


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
    parallelism: ParallelismSettings = DDP
    decoder: bool = False
    """Train a random tiny Llama, whose layers have a tensor-parallel plan, and not the base."""
    precision: ResolvedPrecision = FP64
    checkpoints: Path = Path()


@dataclass(frozen=True)
class Finished:
    """What a run ended with, and rank 0's events."""

    weights: dict[str, np.ndarray]
    events: list[tuple[str, dict[str, Any]]]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Return the fields of every event of a kind."""
        return [fields for event, fields in self.events if event == kind]


def build_engine(
    case: Case,
    rank: int = 0,
    world_size: int = 1,
    events: list[tuple[str, dict[str, Any]]] | None = None,
) -> Engine:
    """Build the engine of one rank, with the same weights on every rank."""
    dataset = TokenizedDataset.load(case.dataset)
    torch.manual_seed(0)
    if case.decoder:
        built = BuiltModel(_tiny_llama())
    else:
        base = check_folder(case.base, source="tiny")
        built = build_for_training(base, labels=dataset.labels, dropout=0.0)
    return Engine(
        apply_method(built, case.method).to(
            torch.float64 if case.precision == FP64 else torch.float32
        ),
        dataset,
        task=WeighedByLength() if case.weighed else TASKS["text-classification"],
        settings=case.settings,
        precision=case.precision,
        device=torch.device("cpu"),
        report=lambda event, **fields: None if events is None else events.append((event, fields)),
        rank=rank,
        world_size=world_size,
        parallelism=case.parallelism,
    )


def _tiny_llama() -> LlamaForSequenceClassification:
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        pad_token_id=0,
    )
    return LlamaForSequenceClassification(config)


def weights(engine: Engine) -> dict[str, np.ndarray]:
    """Return what was trained, whole; every rank must call it."""
    return {name: whole(p.detach()).numpy().copy() for name, p in engine.parameters.items()}


def train(case: Case, rank: int = 0, world_size: int = 1) -> dict[str, np.ndarray]:
    """Take every step on one rank, and return the weights."""
    engine = build_engine(case, rank, world_size)
    for planned in engine.steps:
        engine.step(engine.feed.prepare(planned), planned.learning_rate)
    return weights(engine)


def finish(case: Case, rank: int = 0, world_size: int = 1) -> Finished:
    """Train to the end, from the newest checkpoint if there is one."""
    events: list[tuple[str, dict[str, Any]]] = []
    engine = build_engine(case, rank, world_size, events)
    engine.train(CheckpointFolder(case.checkpoints, keep=2))
    return Finished(weights(engine), events)


def go_on(case: Case, rank: int = 0, world_size: int = 1) -> list[Finished]:
    """Train to the end, then again from the last checkpoint."""
    found = []
    for _ in range(2):
        found.append(finish(case, rank, world_size))
        torch.distributed.barrier()
    return found


def train_on_ranks(case: Case, *, world_size: int, folder: Path) -> dict[str, np.ndarray]:
    """Train on several ranks; return rank 0's weights."""
    (answer,) = on_ranks([(world_size, train, case)], folder=folder)
    return answer


def on_ranks(works: Sequence[tuple[int, Callable[..., Any], Any]], *, folder: Path) -> list[Any]:
    """Do pieces of work one after another on the same processes; return rank 0's answers.

    Args:
        works: number of ranks, a function of (argument, rank, number of ranks), and its argument.
        folder: where the ranks of each piece meet.
    """
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks", "peft", "transformers.models.bert.modeling_bert"])
    answers: Any = context.Queue()
    most = max(world_size for world_size, _, _ in works)
    ranks = [
        context.Process(target=_one_rank, args=(works, rank, folder, answers))
        for rank in range(most)
    ]
    for process in ranks:
        process.start()
    found: list[Any] = []
    while len(found) < len(works) and any(process.is_alive() for process in ranks):
        try:
            found.append(answers.get(timeout=1))
        except queue.Empty:
            if any(process.exitcode for process in ranks):
                break  # the others would wait for it
    for process in ranks:
        if len(found) < len(works):
            process.terminate()
        process.join()
    assert len(found) == len(works), [process.exitcode for process in ranks]
    return found


def _one_rank(
    works: Sequence[tuple[int, Callable[..., Any], Any]], rank: int, folder: Path, answers: Any
) -> None:
    torch.set_num_threads(1)
    for number, (world_size, work, argument) in enumerate(works):
        if rank >= world_size:
            continue
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store-{number}",
            rank=rank,
            world_size=world_size,
        )
        answer = work(argument, rank, world_size)
        if rank == 0:
            answers.put(answer)
        torch.distributed.destroy_process_group()
