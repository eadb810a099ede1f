"""What becomes the version: weights, tokenizer, golden examples and predictions, made by rank 0."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kovar.errors import GoldenError
from kovar.models import ADAPTER_WEIGHTS
from kovar.registry import (
    DatasetPredictions,
    GoldenExample,
    GoldenExamples,
    GoldenResult,
    Predictions,
    current_environment,
    rows_digest,
    source_revision,
    write_golden,
    write_predictions,
)
from kovar.registry.golden import GOLDEN_FILE
from kovar.registry.predictions import PREDICTIONS_FILE
from kovar.training.folder import RunFolder, write_json
from kovar.training.method import Lora

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kovar.data import Split
    from kovar.evaluation import Evaluation
    from kovar.events import EventLog
    from kovar.inference import Runtime
    from kovar.training.attempt import Attempt
    from kovar.training.engine import Engine
    from kovar.training.task import WorkerTask

NUM_GOLDEN: Final = 16
WEIGHTS_FILE: Final = "model.safetensors"
DATASET: Final = "evaluation"
"""What metrics and predictions call the evaluation split."""


def write_version_folder(
    task: WorkerTask,
    paths: RunFolder,
    attempt: Attempt,
    engine: Engine,
    log: EventLog,
    *,
    chip: str,
) -> None:
    """Save the trained model, evaluate it through the runtime that serves, and keep its answers.

    Writes the run's `model` folder whole, then `metrics.json`, whose presence means trained.

    Raises:
        SupersededError: a later attempt took this one's place.
    """
    from kovar.evaluation import evaluate
    from kovar.inference import load_runtime

    began = time.perf_counter()
    attempt.check()
    for leftover in paths.root.glob(".model-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = paths.model.with_name(f".model-{attempt.number}")
    base_folder = _save(engine.model, task, partial)
    split = engine.evaluation_split
    device: Literal["cpu", "cuda"] = "cuda" if engine.device.type == "cuda" else "cpu"
    # fp32 is the reference: whatever a runtime computes in, it is held against these answers.
    options: dict[str, Any] = {"num_threads": task.num_threads, "device": device}
    runtime = load_runtime(partial, precision="fp32", base_folder=base_folder, **options)

    def report(done: int, total: int) -> None:
        log.emit("preparing", what="evaluating", done=done, total=total)

    found = evaluate(runtime, split.texts, split.labels, progress=report)
    _keep_answers(partial, runtime, split, found)
    golden = _check_default(partial, chip=chip, base_folder=base_folder, **options)
    merged_golden = None
    if isinstance(task.spec.method, Lora) and task.spec.method.merge:
        _write_merged(task, partial, paths.merged)
        merged_golden = _check_default(paths.merged, chip=chip, base_folder=None, **options)
    attempt.check()
    shutil.rmtree(paths.model, ignore_errors=True)
    partial.rename(paths.model)
    metrics = found.metrics.to_json()
    log.emit(
        "evaluated",
        step=engine.weights_step,
        data=DATASET,
        metrics=metrics,
        seconds=time.perf_counter() - began,
        final=True,
    )
    weights = ADAPTER_WEIGHTS if base_folder else WEIGHTS_FILE
    with (paths.model / weights).open("rb") as file:
        weights_digest = hashlib.file_digest(file, "sha256").hexdigest()
    log.emit("finished", step=engine.last_step, weights_digest=weights_digest)
    # Of the process that trains: another one may register, later and from other code.
    revision = source_revision(Path(__file__).parent)
    write_json(
        paths.metrics,
        {
            DATASET: metrics,
            "precision": engine.precision.precision,
            "device": chip,
            "num_workers": engine.parallel.world_size,
            "num_steps": engine.last_step,
            "weights_step": engine.weights_step,
            "weights_digest": weights_digest,
            "golden": asdict(golden),
            "merged_golden": asdict(merged_golden) if merged_golden else None,
            "environment": current_environment(chip=chip).model_dump(mode="json"),
            "source_revision": revision.model_dump(mode="json") if revision else None,
        },
    )


def _keep_answers(folder: Path, runtime: Runtime, split: Split, found: Evaluation) -> None:
    """Write golden examples, and the label of every row for paired comparisons of versions."""
    labels, texts = tuple(runtime.labels), split.texts
    chosen = texts[:NUM_GOLDEN]
    examples = tuple(
        GoldenExample(text=text, label=prediction.label, scores=prediction.scores)
        for text, prediction in zip(chosen, runtime.predict(chosen), strict=True)
    )
    write_golden(GoldenExamples(labels=labels, examples=examples), folder)
    true = split.labels.tolist()
    predictions = DatasetPredictions(
        rows=rows_digest((text, labels[index]) for text, index in zip(texts, true, strict=True)),
        labels=labels,
        true=tuple(true),
        predicted=tuple(found.predicted.tolist()),
    )
    write_predictions(Predictions(datasets={DATASET: predictions}), folder)


def _save(model: PreTrainedModel | PeftModel, task: WorkerTask, folder: Path) -> Path | None:
    """Write the trained model, or the adapter alone; return the base that an adapter needs."""
    from kovar.models import save_adapter, save_model

    if isinstance(task.spec.method, Lora):
        save_adapter(model, task.base, folder, max_length=task.spec.data.max_length)
        return task.base.folder
    save_model(model, task.base, folder, max_length=task.spec.data.max_length)
    return None


def _write_merged(task: WorkerTask, adapter: Path, folder: Path) -> None:
    """Write the adapter merged into its base, with the answers that the adapter gave."""
    from kovar.models import load_adapter, save_model

    partial = folder.with_name(f".{folder.name}")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    model = load_adapter(adapter, base=task.base.folder)
    save_model(model, task.base, partial, max_length=task.spec.data.max_length)
    for name in (GOLDEN_FILE, PREDICTIONS_FILE):
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
    from kovar.inference import load_runtime
    from kovar.inference.loader import GOLDEN_TOLERANCE, verify_golden
    from kovar.precision import detect_device, resolve

    precision = resolve("auto", detect_device(device)).precision
    tolerance = GOLDEN_TOLERANCE[precision]
    try:
        served = load_runtime(
            folder, device=device, num_threads=num_threads, base_folder=base_folder
        )
        difference = verify_golden(served, folder)
    except GoldenError:
        return GoldenResult(
            runtime="torch", chip=chip, passed=False, difference=None, tolerance=tolerance
        )
    return GoldenResult(
        runtime="torch", chip=chip, passed=True, difference=difference, tolerance=tolerance
    )
