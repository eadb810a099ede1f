"""What a finished trial leaves: weights, answers and scores, in place of a version's folder.

A winner becomes a version after the sweep (kovar.tuning.registration), so no trial pays for golden
examples, a tokenizer's copy or a second runtime. Its scores are computed in fp32, as a run's are.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.errors import NonFiniteError
from kovar.training.parallel import Parallel
from kovar.training.scoring import Scorer
from kovar.training.shrinking import free_cached, half_of, is_out_of_memory
from kovar.training.tasks.task import better
from kovar.training.trial.answers import ANSWERS_FILE, write_answers
from kovar.training.trial.end import TrialEnd
from kovar.training.trial.weights import WEIGHTS_FILE, write_weights

if TYPE_CHECKING:
    import torch

    from kovar.events import EventLog
    from kovar.training.attempt import Attempt
    from kovar.training.engine import Engine
    from kovar.training.folder import RunFolder
    from kovar.training.task import WorkerTask
    from kovar.training.tasks.task import Tally
    from kovar.training.trial.usage import Meter

DATASET = "evaluation"


def write_trial(
    task: WorkerTask,
    paths: RunFolder,
    attempt: Attempt,
    engine: Engine,
    log: EventLog,
    *,
    meter: Meter,
    chip: str,
    incidents: tuple[str, ...],
    rebuild: Callable[[], torch.nn.Module],
) -> TrialEnd:
    """Score the trained model in fp32, keep its answers and its weights, and write how it ended.

    Args:
        task: the trial.
        paths: its folder.
        attempt: this start of its workers.
        engine: trained; its model may be cast to fp32 here.
        log: the trial's.
        meter: of this stay.
        chip: what computed.
        incidents: in words.
        rebuild: makes the model as it was before training.

    Raises:
        NonFiniteError: a score in fp32 is not finite.
        SupersededError: a later attempt took this one's place.
    """
    began = time.perf_counter()
    trained = trained_tensors(engine.model)
    tally = engine.tally if _is_exact(engine) else None
    # Written before the model is cast: weights that were kept in bf16 stay so in their file.
    metrics = None if tally is None else tally.metrics()
    keeps = metrics is None or _may_win(metrics, task, engine)
    weights = paths.root / WEIGHTS_FILE
    digest = write_weights(trained, weights if keeps else None)
    if tally is None:
        tally = _score_in_fp32(task, engine, weights, rebuild)
        metrics = tally.metrics()
        keeps = _may_win(metrics, task, engine)
    metrics = _finite(metrics or tally.metrics(), engine.weights_step)
    if not keeps:
        weights.unlink(missing_ok=True)
    write_answers(
        tally.answers(), paths.root / ANSWERS_FILE, task=engine.task, labels=engine.dataset.labels
    )
    attempt.check()
    end = TrialEnd(
        status="finished",
        metrics=metrics,
        step=engine.weights_step,
        precision=engine.precision.precision,
        precision_reason=engine.precision.reason,
        chip=chip,
        usage=meter.usage(),
        incidents=incidents,
        weights=WEIGHTS_FILE if keeps else None,
        weights_digest=digest,
        predictions=ANSWERS_FILE,
    )
    end.write(paths.root)
    log.emit(
        "evaluated",
        step=engine.weights_step,
        data=DATASET,
        metrics=metrics,
        seconds=time.perf_counter() - began,
        final=True,
    )
    log.emit("finished", step=engine.last_step, weights_digest=digest)
    return end


def trained_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what training has changed: parameters that need gradients, and buffers."""
    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    return {**parameters, **dict(model.named_buffers())}


def _is_exact(engine: Engine) -> bool:
    """Return whether evaluations during training were computed in plain fp32."""
    return (
        engine.precision.precision == "fp32" and engine.halves is None and engine.compiled is None
    )


def _may_win(metrics: dict[str, float], task: WorkerTask, engine: Engine) -> bool:
    bar, watched = task.weights_bar, engine.judge.metric
    direction = engine.task.metrics[watched]
    return bar is None or better(metrics[watched], bar, direction=direction)


def _finite(metrics: dict[str, float], step: int) -> dict[str, float]:
    if broken := {name: value for name, value in metrics.items() if not math.isfinite(value)}:
        raise NonFiniteError(f"step {step}: evaluation in fp32 gave {broken}", step=step)
    return metrics


def _score_in_fp32(
    task: WorkerTask, engine: Engine, weights: Path, rebuild: Callable[[], torch.nn.Module]
) -> Tally:
    """Score the evaluation split as the reference does, without casting and without fast modes."""
    import torch

    torch.set_float32_matmul_precision("highest")
    model: torch.nn.Module = engine.model
    if engine.compiled is not None or engine.precision.precision == "fp8":
        # Its layers compute in another way than those of the model that is registered.
        model = rebuild()
        own = trained_tensors(model)
        with torch.no_grad():
            for name, tensor in trained_tensors(engine.model).items():
                own[name].copy_(tensor)
        model.to(engine.device)
    scorer = Scorer(
        engine.dataset,
        task=engine.task,
        parallel=Parallel(0, 1, engine.device),
        autocast=contextlib.nullcontext,
        pad_id=engine.pad_id,
        on_ladder=False,
        inference=True,
    )
    limit = engine.feed.micro_batch_tokens or engine.settings.max_tokens
    model.float()
    while True:
        try:
            return scorer.score(model, max_tokens=limit)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_cached(engine.device.type)
        limit = half_of(limit, engine.dataset)


def drop_weights(folder: Path) -> None:
    """Remove the weights of a trial that lost; its scores and answers stay."""
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
