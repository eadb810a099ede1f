"""One side of sweeps.py: a process that starts Ray, says so, and runs one sweep when it is told.

usage: python sweeps_contender.py KIND FOLDER OPTIONS
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

LENGTH = 64
ROWS = 32
"""A batch of the Trainer; 32 rows of these texts are about as many tokens as Kovar's batches."""

DRIVERS = "drivers"
"""What the drivers of trainers take in place of a CPU, which their workers need."""


def start_ray(num_cpus: int) -> None:
    """Start Ray with so many CPUs, whatever the machine has."""
    import ray

    ray.init(
        address="local",
        num_cpus=num_cpus,
        resources={DRIVERS: 1000},
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"TOKENIZERS_PARALLELISM": "false"}},
    )


def kovar(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run Kovar's sweep over these learning rates and precisions."""
    result, seconds = _run(folder, options)
    trials = result.report.trials
    spent = [_spent(folder, result.folder / f"trial-{one.number:04d}", one) for one in trials]
    stays = [stay for one in trials for stay in one.stays]
    return {
        "seconds": seconds,
        "trials_seconds": max(s.ended_at for s in stays) - min(s.started_at for s in stays),
        "trials": spent,
        "num_failed": result.report.num_failed,
        "best": result.report.best.metrics["accuracy"],
    }


def _run(
    folder: Path, options: dict[str, Any], function: Callable[..., Any] | None = None
) -> tuple[Any, float]:
    from kovar.settings import load_settings
    from kovar.training.progress import RunProgress
    from kovar.tuning import load_sweep, run_sweep

    settings = load_settings(os.environ)
    began = time.perf_counter()
    sweep = load_sweep(folder / options["spec"])
    progress = RunProgress(quiet=True)
    chosen = {} if function is None else {"function": function}
    result = run_sweep(sweep, settings=settings, progress=progress, planned=False, **chosen)
    return result, time.perf_counter() - began


def _spent(folder: Path, trial: Path, record: Any) -> dict[str, Any]:
    """Return where one trial's time went."""
    from kovar.events import read_events

    del folder
    events = list(read_events(trial / "events.jsonl"))
    evaluated = sum(e["seconds"] for e in events if e["event"] == "evaluated")
    start, end = record.stays[0].started_at, record.stays[-1].ended_at
    first = next(e for e in events if e["event"] == "started")
    ready = datetime.fromisoformat(first["time"]).timestamp()
    last = datetime.fromisoformat(events[-1]["time"]).timestamp()
    return {
        "number": record.number,
        "wall_seconds": end - start,
        "train_seconds": record.train_seconds,
        "evaluation_seconds": evaluated,
        "start_seconds": ready - start,
        "end_seconds": end - last,
        "overhead_seconds": end - start - record.train_seconds - evaluated,
        "is_first_of_process": first["pid"] not in _SEEN and not _SEEN.add(first["pid"]),
    }


_SEEN: set[int] = set()


def ray_docs(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run the pattern of Ray's documentation: a TorchTrainer for each trial inside Tune.

    https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html, with the
    worker of its guide to transformers. It saves no checkpoints, and its drivers take no CPU.
    """
    from ray import tune

    common = {"folder": str(folder), "base": options["base"], "threads": options["threads"]}
    points = [
        {"learning_rate": rate, "precision": precision}
        for precision in options["precisions"]
        for rate in options["learning_rates"]
    ]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_driver, common=common), {DRIVERS: 1}),
        param_space={"point": tune.grid_search(points)},
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", max_concurrent_trials=options["concurrent"]
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder / "ray"), verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    return {
        "seconds": time.perf_counter() - began,
        "num_failed": results.num_errors,
        "best": results.get_best_result().metrics["accuracy"],
    }


def _driver(config: dict[str, Any], *, common: Mapping[str, Any]) -> None:
    import ray.train
    import ray.train.torch
    import ray.tune
    from ray.tune.integration.ray_train import TuneReportCallback

    ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={**common, **config["point"]},
        scaling_config=ray.train.ScalingConfig(
            num_workers=1, resources_per_worker={"CPU": common["threads"]}
        ),
        run_config=ray.train.RunConfig(
            name=f"trial-{ray.tune.get_context().get_trial_id()}",
            storage_path=str(Path(common["folder"]) / "ray"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def _worker(config: dict[str, Any]) -> None:
    """Tokenize, load the model and train it, as the guide does."""
    import ray.train
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    torch.set_num_threads(config["threads"])
    torch.manual_seed(0)
    folder = Path(config["folder"])
    files = {name: str(folder / f"{name}.parquet") for name in ("train", "evaluation")}
    tokenizer = AutoTokenizer.from_pretrained(config["base"])
    scratch = folder / "ray" / f"worker-{os.getpid()}"
    rows = load_dataset("parquet", data_files=files, cache_dir=str(scratch))
    labels = sorted(set(rows["train"]["label"]))
    rows = rows.map(
        lambda batch: {
            **tokenizer(batch["text"], truncation=True, max_length=LENGTH),
            "labels": [labels.index(label) for label in batch["label"]],
        },
        batched=True,
        remove_columns=["text", "label"],
    )
    model = AutoModelForSequenceClassification.from_pretrained(
        config["base"], num_labels=len(labels)
    )
    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=ROWS,
        per_device_eval_batch_size=ROWS,
        learning_rate=config["learning_rate"],
        num_train_epochs=1,
        use_cpu=True,
        bf16=config["precision"] == "bf16",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["evaluation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {
            "accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())
        },
    )
    trainer.train()
    ray.train.report({"accuracy": trainer.evaluate()["eval_accuracy"]})


def kovar_trivial(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run as many trials that do nothing through Kovar's sweep."""
    from kovar.tuning.ledger import read_ledger

    result, seconds = _run(folder, options, function=_nothing)
    at = {entry.kind: entry.at for entry in read_ledger(result.folder / "ledger.jsonl")}
    return {
        "seconds": seconds,
        # As Tune's own: from the start of its loop to the end of the last trial.
        "trials_seconds": at["closed"] - at["opened"],
        "num_failed": result.report.num_failed,
    }


def _nothing(payload: Any, report: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    from kovar.tuning.trial import TrialEnd

    report({"step": 1, "seconds": 0.0, "metrics": {"accuracy": 0.5}})
    return TrialEnd("finished", metrics={"accuracy": 0.5}, step=1).to_json()


def ray_trivial(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run as many trials that do nothing through Ray Tune alone, in reused actors."""
    from ray import tune

    def nothing(config: dict[str, Any]) -> None:
        tune.report({"accuracy": 0.5})

    tuner = tune.Tuner(
        nothing,
        param_space={"seed": tune.grid_search(list(range(options["trials"])))},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            max_concurrent_trials=options["concurrent"],
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder / "ray"), verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    return {"seconds": time.perf_counter() - began, "num_failed": results.num_errors}


KINDS = {
    "kovar": kovar,
    "ray": ray_docs,
    "kovar-trivial": kovar_trivial,
    "ray-trivial": ray_trivial,
}


def main() -> None:
    """Start Ray, say so, wait for a line, run, answer."""
    kind, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    # What libraries print goes elsewhere: answers alone stand on the standard output.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    start_ray(options["concurrent"] * options["threads"])
    answers.write("ready\n")
    sys.stdin.readline()
    answers.write(json.dumps(KINDS[kind](folder, options)) + "\n")
    sys.stdin.readline()
    import ray

    with contextlib.suppress(Exception):
        ray.shutdown()


if __name__ == "__main__":
    main()
