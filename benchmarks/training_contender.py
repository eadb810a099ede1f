"""One contender of training.py: a process that trains when a line on its input asks for it.

usage: python training_contender.py kovar|trainer|trainer-8|trainer-best|pair|ray FOLDER
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from kovar.config import load_yaml
from kovar.data import DataSpec, TokenizedDataset, prepare_dataset
from kovar.models import BaseModelFiles, ModelSpec, resolve_base
from kovar.precision import detect_device, resolve
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.engine import Engine
from kovar.training.snapshot_plan import SnapshotPlan
from kovar.training.spec import FineTuneSpec
from kovar.training.tasks import TASKS

RECIPE = Path(__file__).parents[1] / "jobs" / "movie-sentiment.yaml"
TRAINER_ROWS = {"trainer": 32, "trainer-8": 8, "trainer-best": 32}
NEVER = 10**9
CPU = torch.device("cpu")


class Setup:
    """The recipe, its data and its base."""

    def __init__(self, work: Path) -> None:
        self.spec = load_yaml(RECIPE, FineTuneSpec)
        places = {"cache_dir": work / "cache", "base_dir": RECIPE.parent}
        self.base: BaseModelFiles = resolve_base(ModelSpec(base=self.spec.model.base), **places)
        self._places = places

    def dataset(self, evaluation: int) -> TokenizedDataset:
        """Return the recipe's data with so many rows held out."""
        data: DataSpec = self.spec.data.model_copy(update={"evaluation": evaluation})
        return prepare_dataset(data, tokenizer_dir=self.base.folder, **self._places)

    def settings(self, **changes: Any) -> TrainingSettings:
        """Return the recipe's settings with changes."""
        return self.spec.training.model_copy(update=changes)


class Kovar:
    """The engine on one rank, or one of several."""

    def __init__(self, setup: Setup, *, rank: int = 0, world_size: int = 1) -> None:
        self.setup = setup
        self.rank, self.world_size = rank, world_size

    def engine(
        self, precision: str, *, evaluation: int = 64, report: Any = None, **changes: Any
    ) -> Engine:
        """Build a model and its engine."""
        settings = self.setup.settings(**changes)
        dataset = self.setup.dataset(evaluation)
        torch.manual_seed(settings.seed)
        task = TASKS["text-classification"]
        return Engine(
            task.build_model(self.setup.base, dataset).model,
            dataset,
            task=task,
            settings=settings,
            precision=resolve(precision, detect_device("cpu")),  # type: ignore[arg-type]
            device=CPU,
            report=report or (lambda event, **fields: None),
            rank=self.rank,
            world_size=self.world_size,
        )

    def run(self, engine: Engine, evaluated: list[float]) -> float:
        """Train; return the seconds without evaluation."""
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            engine.train(CheckpointFolder(Path(folder), keep=2))
            return time.perf_counter() - began - sum(evaluated)

    def train(self, precision: str, rows: int) -> dict[str, Any]:
        """Train on about so many rows; return the tokens without padding and the seconds."""
        evaluated: list[float] = []
        quiet = {"evaluate_every": NEVER, "checkpoint_every": NEVER}
        planned = self.engine(precision, **quiet).steps
        steps = max(1, round(rows * len(planned) / sum(len(s.batch.rows) for s in planned)))
        engine = self.engine(precision, report=_hear(evaluated), max_steps=steps, **quiet)
        seconds = self.run(engine, evaluated)
        lengths = engine.dataset.open("train").lengths
        return {
            "seconds": seconds,
            "tokens": sum(int(lengths[step.batch.rows].sum()) for step in engine.steps),
            "tokens_per_row": float(lengths.mean()),
        }

    def quality(self, precision: str, seed: int) -> dict[str, Any]:
        """Train one epoch and score the held-out rows."""
        found: dict[str, float] = {}

        def report(event: str, **fields: Any) -> None:
            if event == "evaluated":
                found.update(fields["metrics"])

        once = {"seed": seed, "checkpoint_every": NEVER}
        self.run(self.engine(precision, evaluation=1605, report=report, **once), [])
        return {"accuracy": found["accuracy"]}

    def peak(self, precision: str, rows: int) -> dict[str, Any]:
        """Hold the operations of tokens without padding against the peak of matrix products."""
        before = _peak_flops(precision)
        evaluated: list[float] = []
        engine = self.engine(
            precision, report=_hear(evaluated), max_steps=max(1, rows // 52),
            evaluate_every=NEVER, checkpoint_every=NEVER,
        )  # fmt: skip
        seconds = self.run(engine, evaluated)
        peak_flops = max(before, _peak_flops(precision))
        lengths = engine.dataset.open("train").lengths
        trained = [int(n) for step in engine.steps for n in lengths[step.batch.rows]]
        padded = sum(len(step.batch.rows) * step.batch.longest for step in engine.steps)
        needed = sum(_flops(self.setup.base.config, length) for length in trained)
        return {
            "share": needed / seconds / peak_flops,
            "peak_flops": peak_flops,
            "padding": 1 - sum(trained) / padded,
        }

    def checkpoints(self, precision: str) -> dict[str, Any]:
        """Train 100 steps without and with checkpoints; time what exact resumption needs."""
        seconds, stalls, seeding = [], [], [0.0]
        for every in (NEVER, 50):
            evaluated: list[float] = []

            def report(event: str, heard: list[float] = evaluated, **fields: Any) -> None:
                _hear(heard)(event, **fields)
                if event == "checkpoint":
                    stalls.append(fields["seconds"])

            began = time.perf_counter()
            engine = self.engine(
                precision, report=report, max_steps=100, evaluate_every=NEVER,
                checkpoint_every=every,
            )  # fmt: skip
            building = time.perf_counter() - began
            with _timed(torch, "manual_seed", seeding):
                seconds.append(self.run(engine, evaluated))
        del building
        planning = _seconds(lambda: list(self.engine(precision).steps)) - _seconds(
            lambda: self.engine(precision)
        )
        step = seconds[0] / 100
        return {
            "stall_seconds": max(stalls),
            "stall_share": sum(stalls) / len(stalls) / (SnapshotPlan(50, "cpu").period * step),
            "slowdown": seconds[1] / seconds[0] - 1,
            "bookkeeping_share": (seeding[0] / 200 + max(0.0, planning) / 167) / step,
        }


def _hear(evaluated: list[float]) -> Callable[..., None]:
    def report(event: str, **fields: Any) -> None:
        if event == "evaluated":
            evaluated.append(fields["seconds"])

    return report


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def _timed(owner: Any, name: str, total: list[float]) -> Iterator[None]:
    """Add up the seconds of all calls of a function while the block runs."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*arguments, **options)
        finally:
            total[0] += time.perf_counter() - began

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _flops(config: Any, length: int) -> float:
    """Operations of one row of an encoder, forward and backward, without its look-ups and head."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    weights = layers * (4 * width**2 + 2 * width * config["intermediate_size"])
    return 3 * (2 * weights * length + layers * 4 * length**2 * width)


def _peak_flops(precision: str, size: int = 2048) -> float:
    """Return the best of several matrix products, in FLOP/s."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(size, size).to(kind)
    return 2 * size**3 / min(_seconds(lambda: matrix @ matrix) for _ in range(9))


class Trainer:
    """The Hugging Face Trainer on the same model and rows."""

    def __init__(self, setup: Setup, kind: str) -> None:
        self.setup, self.best, self.rows = setup, kind == "trainer-best", TRAINER_ROWS[kind]
        self.tokens = 0
        self.read: dict[tuple[Path, str], Any] = {}

    def trainer(self, precision: str, evaluation: int, *, seed: int = 0, **changes: Any) -> Any:
        """Build a model and its Trainer."""
        from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast, TrainingArguments
        from transformers import Trainer as HuggingFaceTrainer

        dataset = self.setup.dataset(evaluation)
        torch.manual_seed(seed)
        model = TASKS["text-classification"].build_model(self.setup.base, dataset).model
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.setup.base.folder)
        flags = {"train_sampling_strategy": "group_by_length"} if self.best else {}
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=self.rows, use_cpu=True,
            bf16=precision == "bf16", save_strategy="no", report_to=[], disable_tqdm=True,
            seed=seed, logging_strategy="no", dataloader_pin_memory=False, **flags, **changes,
        )  # fmt: skip
        return HuggingFaceTrainer(
            model=model, args=arguments, train_dataset=self._rows(dataset, "train"),
            eval_dataset=self._rows(dataset, "evaluation"),
            data_collator=self._counted(DataCollatorWithPadding(tokenizer)),
            compute_metrics=lambda found: {
                "accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())
            },
        )  # fmt: skip

    def _counted(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def counted(rows: Any) -> Any:
            batch = collate(rows)
            self.tokens += int(batch["attention_mask"].sum())
            return batch

        return counted

    def _rows(self, dataset: TokenizedDataset, split: str) -> Any:
        from datasets import Dataset

        if (dataset.folder, split) in self.read:
            return self.read[dataset.folder, split]
        rows = dataset.open(split)  # type: ignore[arg-type]
        ids = [rows.input_ids(row).tolist() for row in range(len(rows))]
        self.read[dataset.folder, split] = Dataset.from_dict({
            "input_ids": ids,
            "attention_mask": [[1] * len(row) for row in ids],
            "labels": rows.labels.tolist(),
        })  # fmt: skip
        return self.read[dataset.folder, split]

    def train(self, precision: str, rows: int) -> dict[str, Any]:
        """Train on so many rows; return the tokens without padding and the seconds."""
        trainer = self.trainer(precision, 64, max_steps=max(1, rows // self.rows))
        self.tokens = 0
        lengths = self.setup.dataset(64).open("train").lengths
        return {
            "seconds": _seconds(trainer.train),
            "tokens": self.tokens,
            "tokens_per_row": float(lengths.mean()),
        }

    def quality(self, precision: str, seed: int) -> dict[str, Any]:
        """Train one epoch and score the held-out rows."""
        trainer = self.trainer(precision, 1605, seed=seed, num_train_epochs=1)
        trainer.train()
        return {"accuracy": trainer.evaluate()["eval_accuracy"]}


class Pair:
    """Two ranks of one thread each; this process is the first."""

    def __init__(self, setup: Setup, work: Path) -> None:
        import torch.distributed
        import torch.multiprocessing

        self.meeting = work / f"meeting-{os.getpid()}"
        self.asked = torch.multiprocessing.get_context("spawn").Queue()
        self.other = torch.multiprocessing.spawn(
            _other_rank, (work, self.meeting, self.asked), join=False
        )
        _join(self.meeting, 0)
        self.kovar = Kovar(setup, rank=0, world_size=2)

    def train(self, precision: str, rows: int) -> dict[str, Any]:
        """Train on both ranks."""
        self.asked.put((precision, rows))
        torch.distributed.barrier()
        return self.kovar.train(precision, rows)


def _join(meeting: Path, rank: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )


def _other_rank(_: int, work: Path, meeting: Path, asked: Any) -> None:
    kovar = Kovar(Setup(work), rank=1, world_size=2)
    _join(meeting, 1)
    while True:
        precision, rows = asked.get()
        torch.distributed.barrier()
        kovar.train(precision, rows)


class OnRay:
    """Two workers on a Ray that this process starts."""

    def __init__(self, setup: Setup, work: Path) -> None:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self.setup, self.work = setup, work
        self.number = 0

    def start(self, contender: str) -> dict[str, Any]:
        """Return the seconds from the call to the end of the first step."""
        self.number += 1
        began = time.time()
        ended = self._kovar() if contender == "Kovar" else self._plain()
        return {"seconds": ended - began}

    def _kovar(self) -> float:
        from datetime import datetime

        from kovar.events import read_events
        from kovar.settings import load_settings
        from kovar.training.cluster import train_on_ray
        from kovar.training.folder import RunFolder
        from kovar.training.task import WorkerTask

        folder = self.work / f"run-{self.number}"
        spec = self.setup.spec.model_copy(
            update={"training": self.setup.settings(max_steps=1), "precision": "fp32"}
        )
        task = WorkerTask(
            spec=spec,
            folder=folder,
            dataset=self.setup.dataset(64),
            base=self.setup.base,
            request=spec.resources.worker,
            num_threads=1,
        )
        train_on_ray(task, settings=load_settings({}))
        steps = [e for e in read_events(RunFolder(folder).events) if e["event"] == "step"]
        return datetime.fromisoformat(steps[0]["time"]).timestamp()

    def _plain(self) -> float:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        told = self.work / f"plain-{self.number}"
        TorchTrainer(
            _plain_worker,
            train_loop_config={"base": str(self.setup.base.folder), "told": str(told)},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name=f"plain-{self.number}", storage_path=str(self.work / "ray")),
        ).fit()
        return float(told.read_text())


def _plain_worker(config: dict[str, str]) -> None:
    """Do what a user's own loop does up to the end of its first step."""
    import ray.train
    import ray.train.torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(config["base"], num_labels=2)
    model = ray.train.torch.prepare_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(1000, 20_000, (26, 32))
    model(input_ids=ids, labels=torch.zeros(26, dtype=torch.int64)).loss.backward()
    optimizer.step()
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["told"]).write_text(str(time.time()))


def main() -> None:
    """Answer each line with a line."""
    kind, work = sys.argv[1], Path(sys.argv[2])
    # What libraries print goes elsewhere: answers alone stand on the standard output.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1 if kind in ("pair", "ray") else 2)
    setup = Setup(work)
    contender: Any = {
        "kovar": lambda: Kovar(setup),
        **dict.fromkeys(TRAINER_ROWS, lambda: Trainer(setup, kind)),
        "pair": lambda: Pair(setup, work),
        "ray": lambda: OnRay(setup, work),
    }[kind]()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(contender, asked.pop("what"))(**asked)
        answers.write(json.dumps(answer) + "\n")
    if kind == "pair":
        for process in contender.other.processes:
            process.terminate()


if __name__ == "__main__":
    main()
