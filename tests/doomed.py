"""Ranks that run the worker without Ray, each a process of its own, and die when they are told."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from kovar.data import prepare_dataset
from kovar.models import check_folder
from kovar.resources import CpuRequest
from kovar.training import FineTuneSpec
from kovar.training.task import WorkerTask
from kovar.training.worker import execute
from tiny import build_tiny_encoder
from tiny_run import write_reviews

PRELOADED = (
    "doomed",
    "sklearn.metrics",
    "transformers.models.bert.modeling_bert",
    "torch.utils.tensorboard",
    "torch._dynamo",
)
"""Imported once, in the process that ranks are forked from."""

FULL_DISK = 0
"""In place of a signal: from now on no file may grow beyond 64 KiB."""

Death = tuple[int, int]
"""A step, and the signal that the rank sends to itself after it."""


def tiny_task(folder: Path, *, run: str = "run", **training: Any) -> WorkerTask:
    """Return what the workers of a tiny run are given; its inputs lie in `folder`."""
    if not (folder / "encoder").exists():
        build_tiny_encoder(folder / "encoder")
        write_reviews(folder / "reviews.csv")
    base = check_folder(folder / "encoder", source="tiny")
    spec = FineTuneSpec.model_validate(
        {
            "kind": "finetune",
            "name": "tiny",
            "model": {"base": "encoder"},
            "data": {"source": "reviews.csv", "evaluation": 24, "max_length": 32},
            "training": {
                "epochs": 8,
                "max_tokens": 128,
                "learning_rate": 0.005,
                "evaluate_every": 1000,
                **training,
            },
            "precision": "fp32",
        }
    )
    dataset = prepare_dataset(
        spec.data, tokenizer_dir=base.folder, cache_dir=folder / "cache", base_dir=folder
    )
    return WorkerTask(
        spec=spec,
        folder=folder / run,
        dataset=dataset,
        base=base,
        request=CpuRequest(kind="cpu", cpus=1),
        num_threads=1,
    )


def start_rank(
    task: WorkerTask, store: Path, *, rank: int = 0, world_size: int = 1, death: Death | None = None
) -> Any:
    """Start one rank; return its process, which exits with 0 when the attempt ended normally."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_run, args=(task, str(store), rank, world_size, death))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
        process.start()
    return process


def attempt(
    task: WorkerTask,
    store: Path,
    *,
    world_size: int = 1,
    deaths: Mapping[int, Death] | None = None,
) -> list[int]:
    """Run all ranks once and return their exit codes; what waits for a dead rank is killed."""
    deaths = deaths or {}
    ranks = [
        start_rank(task, store, rank=rank, world_size=world_size, death=deaths.get(rank))
        for rank in range(world_size)
    ]
    for rank, (_, sent) in deaths.items():
        if sent == signal.SIGKILL:
            ranks[rank].join()
            for other in ranks:
                other.kill()
    for process in ranks:
        process.join()
    return [process.exitcode for process in ranks]


def _run(task: WorkerTask, store: str, rank: int, world_size: int, death: Death | None) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
        )
    device = torch.device("cpu")
    hears = _dies(task.folder, death) if death else lambda: None
    execute(task, device=device, rank=rank, world_size=world_size, hears=hears)


def _dies(folder: Path, death: Death) -> Callable[[], None]:
    """Count the steps of this process; it is asked after each of them."""
    step, sent = death
    done = newest_step(folder)

    def hear() -> None:
        nonlocal done
        done += 1
        if done == step and sent == FULL_DISK:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        elif done == step:
            os.kill(os.getpid(), sent)

    return hear


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 if there is none."""
    names = (path.name for path in (folder / "checkpoints").glob("step-*"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)
