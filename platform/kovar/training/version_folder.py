"""What becomes the version: weights, tokenizer, golden examples and predictions, made by rank 0."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kovar.errors import GoldenError
from kovar.models import ADAPTER_WEIGHTS
from kovar.registry import (
    GoldenResult,
    Predictions,
    current_environment,
    source_revision,
    write_golden,
    write_predictions,
)
from kovar.registry.golden import GOLDEN_FILE
from kovar.registry.predictions import PREDICTIONS_FILE
from kovar.training.folder import RunFolder, write_json
from kovar.training.method import Lora
from kovar.training.shrinking import free_cached
from kovar.training.tasks import TASKS

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kovar.training.attempt import Attempt
    from kovar.training.engine import Engine, Report
    from kovar.training.task import WorkerTask

WEIGHTS_FILE: Final = "model.safetensors"
DATASET: Final = "evaluation"
"""What metrics and predictions call the evaluation split."""


@dataclass(frozen=True)
class Trained:
    """A model that has been trained, and how.

    Args:
        model: holds the weights that count.
        device: where they are.
        precision: of training.
        num_workers: that trained it.
        num_steps: optimizer steps done.
        weights_step: the step whose weights these are.
        chip: what it was trained on.
    """

    model: PreTrainedModel | PeftModel
    device: torch.device
    precision: str
    num_workers: int
    num_steps: int
    weights_step: int
    chip: str

    @classmethod
    def by(cls, engine: Engine, *, chip: str) -> Trained:
        """Describe what an engine leaves."""
        return cls(
            engine.model,
            engine.device,
            engine.precision.precision,
            engine.parallel.world_size,
            engine.last_step,
            engine.weights_step,
            chip,
        )


def write_version_folder(
    task: WorkerTask,
    paths: RunFolder,
    attempt: Attempt,
    trained: Trained,
    report: Report,
) -> None:
    """Save the trained model, evaluate it through the runtime that serves, and keep its answers.

    Writes the run's `model` folder whole, then `metrics.json`, whose presence means trained.

    Args:
        task: what was trained.
        paths: of the run.
        attempt: this start of the workers.
        trained: the model.
        report: receives events.

    Raises:
        SupersededError: a later attempt took this one's place.
    """
    from kovar.inference import load_any
    from kovar.precision import detect_device

    began = time.perf_counter()
    attempt.check()
    for leftover in paths.root.glob(".model-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = paths.model.with_name(f".model-{attempt.number}")
    base_folder = _save(trained.model, task, partial)
    split = task.dataset.open("evaluation")
    device: Literal["cpu", "cuda"] = "cuda" if trained.device.type == "cuda" else "cpu"
    chip = detect_device(device).name
    # fp32 is the reference: whatever a runtime computes in, it is held against these answers.
    options: dict[str, Any] = {"num_threads": task.num_threads, "device": device}
    runtime = load_any(partial, precision="fp32", base_folder=base_folder, **options)

    def progress(done: int, total: int) -> None:
        report("preparing", what="evaluating", done=done, total=total)

    found = TASKS[task.spec.task].examine(runtime, split, progress=progress)
    write_golden(found.golden, partial)
    if found.predictions is not None:
        write_predictions(Predictions(datasets={DATASET: found.predictions}), partial)
    # One copy of the model at a time beside the one that was trained.
    del runtime
    free_cached(trained.device.type)
    golden = _check_default(partial, chip=chip, base_folder=base_folder, **options)
    merged_golden = None
    if isinstance(task.spec.method, Lora) and task.spec.method.merge:
        _write_merged(task, partial, paths.merged)
        merged_golden = _check_default(paths.merged, chip=chip, base_folder=None, **options)
    attempt.check()
    shutil.rmtree(paths.model, ignore_errors=True)
    partial.rename(paths.model)
    metrics = found.metrics
    report(
        "evaluated",
        step=trained.weights_step,
        data=DATASET,
        metrics=metrics,
        seconds=time.perf_counter() - began,
        final=True,
    )
    weights = ADAPTER_WEIGHTS if base_folder else WEIGHTS_FILE
    with (paths.model / weights).open("rb") as file:
        weights_digest = hashlib.file_digest(file, "sha256").hexdigest()
    report("finished", step=trained.num_steps, weights_digest=weights_digest)
    # Of the process that trains: another one may register, later and from other code.
    revision = source_revision(Path(__file__).parent)
    write_json(
        paths.metrics,
        {
            DATASET: metrics,
            "precision": trained.precision,
            "device": trained.chip,
            "num_workers": trained.num_workers,
            "num_steps": trained.num_steps,
            "weights_step": trained.weights_step,
            "weights_digest": weights_digest,
            "golden": asdict(golden),
            "merged_golden": asdict(merged_golden) if merged_golden else None,
            "environment": current_environment(chip=trained.chip).model_dump(mode="json"),
            "source_revision": revision.model_dump(mode="json") if revision else None,
        },
    )


def _save(model: PreTrainedModel | PeftModel, task: WorkerTask, folder: Path) -> Path | None:
    """Write the trained model, or the adapter alone; return the base that an adapter needs."""
    from kovar.models import save_adapter

    max_length = task.spec.data.max_length
    if isinstance(task.spec.method, Lora):
        save_adapter(model, task.base, folder, max_length=max_length)
        return task.base.folder
    TASKS[task.spec.task].save_model(model, task.base, folder, max_length=max_length)
    return None


def _write_merged(task: WorkerTask, adapter: Path, folder: Path) -> None:
    """Write the adapter merged into its base, with the answers that the adapter gave."""
    from kovar.models import load_adapter

    partial = folder.with_name(f".{folder.name}")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    model = load_adapter(adapter, base=task.base.folder)
    TASKS[task.spec.task].save_model(
        model, task.base, partial, max_length=task.spec.data.max_length
    )
    for name in (GOLDEN_FILE, PREDICTIONS_FILE):
        if (adapter / name).is_file():
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(adapter / name, partial / name)
    partial.rename(folder)


def _check_default(
    folder: Path,
    *,
    chip: str,
    device: Literal["cpu", "cuda"],
    num_threads: int,
    base_folder: Path | None,
) -> GoldenResult:
    """Hold the runtime that serves by default against the golden examples, for the gates."""
    from kovar.inference import load_any
    from kovar.inference.golden import GOLDEN_TOLERANCE, verify_golden
    from kovar.precision import detect_device, resolve

    precision = resolve("auto", detect_device(device)).precision
    tolerance = GOLDEN_TOLERANCE[precision]
    try:
        served = load_any(folder, device=device, num_threads=num_threads, base_folder=base_folder)
        difference = verify_golden(served, folder)
    except GoldenError:
        return GoldenResult(
            runtime="torch", chip=chip, passed=False, difference=None, tolerance=tolerance
        )
    return GoldenResult(
        runtime="torch", chip=chip, passed=True, difference=difference, tolerance=tolerance
    )
