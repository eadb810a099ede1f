"""The training loop of one rank: planned steps, and when to report, evaluate and save.

It knows no task, method or optimizer by name, and not Ray. Two runs with the same spec, data and
number of workers end with the same bits, interrupted or not: batches and learning rates are
planned (schedule.py), dropout is seeded per step and rank, and a checkpoint holds the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from kovar.errors import NonFiniteError, PreemptedError
from kovar.models import quicken_dropout, quicken_embeddings, read_rows_in_line
from kovar.training.adjustments import UNCHANGED, Adjustments
from kovar.training.budget import measure_budget
from kovar.training.compiled import Compiled, widest_steps, with_and_without_padding
from kovar.training.ema import Ema
from kovar.training.feed import Feed
from kovar.training.fp8 import multiply_in_fp8
from kovar.training.halves import Halves, keep_in_bf16
from kovar.training.judge import Judge
from kovar.training.notice import Hears, Notices, nothing
from kovar.training.optimizer import build_optimizer
from kovar.training.padding import PADDED, ResolvedPadding
from kovar.training.parallel import DDP, Ddp, ParallelismSettings, local, parallel_of, united_model
from kovar.training.saving import CheckpointWriter
from kovar.training.schedule import PlannedStep, plan_steps
from kovar.training.scoring import Scorer
from kovar.training.sharded_state import ShardedState
from kovar.training.shrinking import (
    PassTooLargeError,
    free_cached,
    half_of,
    halved,
    is_out_of_memory,
)
from kovar.training.skips import Skips
from kovar.training.snapshot_plan import SnapshotPlan
from kovar.training.state import TrainingState
from kovar.training.step import OptimizerStep
from kovar.training.window import Window

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kovar.data import TokenizedDataset
    from kovar.events import EventKind
    from kovar.precision import ResolvedPrecision
    from kovar.training.checkpoint import CheckpointFolder
    from kovar.training.feed import StepBatch
    from kovar.training.halves import Weights
    from kovar.training.spec import TrainingSettings
    from kovar.training.step import StepOutcome
    from kovar.training.tasks import Task
    from kovar.training.tasks.task import Tally

LOG_EVERY = 10


class Report(Protocol):
    """Receives what happens; `EventLog.emit` is one."""

    def __call__(self, event: EventKind, **fields: Any) -> object:
        """Take one event with its fields, as documented in kovar.events."""


class Engine:
    """Trains one model on one rank.

    Args:
        model: as the task built it and the method left it; what needs gradients is trained.
        dataset: tokenized rows; every rank opens the same one.
        task: what is learned.
        settings: how the weights move.
        precision: as resolved for `device`.
        device: where the model lives.
        rank: this process's rank.
        world_size: number of ranks; above 1 the default process group must exist.
        parallelism: how the ranks share the model.
        report: receives events; called on rank 0 only, but for what only the rank itself knows.
        hears: says when this rank's machine goes away.
        padding: as resolved for `device`.
        weights: the format that weights are kept in between steps.
        memory_bytes: what this process may have; None for what the machine has.
        adjustments: what the run changed about itself before.
        remember: is given the adjustments when they change, before anything follows from it, and
            whether this rank is the one that writes them down.
        saves_updates: whether a checkpoint of an evaluated step is on the disk before its scores
            are reported, so that whoever hears them can go on from there.

    Attributes:
        last_step: the step that ended the run.
        weights_step: the step whose weights the model holds after `train`.
        tally: of the evaluation of `weights_step`; None where this process made none.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        dataset: TokenizedDataset,
        *,
        task: Task,
        settings: TrainingSettings,
        precision: ResolvedPrecision,
        device: torch.device,
        report: Report,
        hears: Hears = nothing,
        padding: ResolvedPadding = PADDED,
        rank: int = 0,
        world_size: int = 1,
        parallelism: ParallelismSettings = DDP,
        weights: Weights = "fp32",
        memory_bytes: int | None = None,
        adjustments: Adjustments = UNCHANGED,
        remember: Callable[[Adjustments, bool], None] | None = None,
        saves_updates: bool = False,
    ) -> None:
        import torch

        self.task = task
        self.settings = settings
        self.precision = precision
        self.device = device
        self._hears = hears
        self.parallel = parallel_of(parallelism, rank, world_size, device)
        self.dataset = dataset
        train_split = dataset.open("train")
        self.steps = plan_steps(
            train_split.lengths,
            fingerprint=dataset.fingerprint,
            max_length=dataset.facts["max_length"],
            settings=settings,
        )
        self._report = report if self.parallel.is_main else _silent
        self._report_any = report
        self._remember = remember
        self._memory_bytes = memory_bytes
        self._saves_updates = saves_updates
        self.adjustments = adjustments
        in_halves = weights == "bf16" and keep_in_bf16(model)
        if precision.precision == "fp8":
            multiply_in_fp8(model, emulate=device.type == "cpu")
        self.model = model
        self.pad_id = int(getattr(model.config, "pad_token_id", None) or 0)
        if settings.gradient_checkpointing:
            self.model.activation_checkpointing_enable()
        self.padding = padding
        if padding.padding_free:
            read_rows_in_line(self.model)
        self.compiled = Compiled(self.model) if settings.compile else None
        self.parallel.place(self.model, precision)
        self._is_cut = not isinstance(parallelism, Ddp)
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.halves = Halves(self.parameters) if in_halves else None
        moved = self.parameters if self.halves is None else self.halves.whole
        self.optimizer = build_optimizer(moved, settings)
        if self.halves is not None:
            self.halves.release()
        self.ema = Ema(self.parameters, settings.ema_decay) if settings.ema_decay else None
        self.judge = Judge(settings, task)
        self.snapshots = SnapshotPlan(settings.checkpoint_every, device.type)
        self.skips = Skips(len(self.steps), scaled=precision.scaler)
        self.last_step = 0
        self.weights_step = 0
        self._tallies: dict[int, Tally] = {}
        if device.type == "cpu" and not (settings.compile or self.parallel.in_step):
            quicken_dropout(self.model)
            quicken_embeddings(self.model)
        self.feed = Feed(
            task,
            train_split,
            parallel=self.parallel,
            micro_batch_tokens=adjustments.limit(settings.micro_batch_tokens),
            pad_id=self.pad_id,
            seed=settings.seed,
            on_ladder=settings.compile,
            padding=self.padding,
        )
        self.step = self._make_step(list(moved.values()))
        self.scorer = Scorer(
            dataset,
            task=task,
            parallel=self.parallel,
            autocast=self.step.autocast,
            pad_id=self.pad_id,
            on_ladder=settings.compile,
            # Under autocast torchao's layers do not compute in inference mode.
            inference=precision.precision != "fp8",
        )
        self._facts: dict[str, Any] = {
            "num_steps": len(self.steps),
            "fingerprint": dataset.fingerprint,
            "world_size": world_size,
            "adjustments": adjustments.to_json(),
        }
        self.state = self._make_state()
        # fp32 weights are multiplied in TF32 on matrix units only where the spec says so.
        torch.set_float32_matmul_precision("high" if precision.precision == "tf32" else "highest")

    def _make_step(self, moved: list[torch.nn.Parameter]) -> OptimizerStep:
        task, settings = self.task, self.settings
        # Nothing is cast where all weights are in bf16 already.
        casts = self.precision.autocast and self.halves is None
        return OptimizerStep(
            self.parallel.wrap(self.model),
            moved,
            objective=lambda outputs, batch: task.loss(
                outputs, batch.targets, label_smoothing=settings.label_smoothing
            ),
            optimizer=self.optimizer,
            parallel=self.parallel,
            precision=replace(self.precision, autocast=casts),
            max_gradient_norm=settings.max_gradient_norm,
            seed=settings.seed,
            halves=self.halves,
        )

    def _make_state(self) -> TrainingState:
        kind = partial(ShardedState, rank=self.parallel.rank) if self._is_cut else TrainingState
        return kind(
            self.model,
            self.parameters,
            optimizer=self.optimizer,
            step=self.step,
            judge=self.judge,
            ema=self.ema,
            skips=self.skips,
            halves=self.halves,
            facts=self._facts,
        )

    def train(self, checkpoints: CheckpointFolder) -> None:
        """Run all steps, from the newest checkpoint that verifies if there is one.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing is saved after it.
            OutOfMemoryError: not even one row passes through the model.
            PassTooLargeError: on one of several ranks; the adjustments are remembered, and all
                ranks have to start again.
            CheckpointError: a checkpoint could not be written.
            PreemptedError: a machine goes away; a checkpoint of the last step was saved.
        """
        with self.compiled.counting() if self.compiled else nullcontext():
            self._train(checkpoints)

    def _train(self, checkpoints: CheckpointFolder) -> None:
        done = self.resume(checkpoints)
        if self.settings.micro_batch_tokens == "auto" and self.feed.micro_batch_tokens is None:
            self._measure()
        self._rehearse(done)
        num_parts = self.parallel.world_size if self.parallel.in_step else 1
        writer = CheckpointWriter(
            checkpoints, self.state, self.parallel, num_parts=num_parts, resumed_from=done
        )
        notices = Notices(self._hears, self.parallel)
        with writer.open(), closing(self.feed.batches(self.steps[done:])) as batches:
            preempted = self._run(batches, writer, notices)
            notices.close()
            writer.drain()
            self._acknowledge(writer, wait=preempted is not None)
        self.state.release()
        if preempted:
            self._report("preempted", step=self.last_step, reason=preempted)
            raise PreemptedError(
                f"the workers ended after step {self.last_step}: {preempted}",
                hint="submit the run again: it goes on from there",
            )
        self._check_weights()
        self._finish(checkpoints)

    def _rehearse(self, step: int) -> None:
        """Settle what whichever step comes first would settle, the same in every attempt."""
        if self.compiled is not None:
            while not self._rehearses_widest():
                free_cached(self.device.type)
            self._report_compiled(step)
        elif self.parallel.orders_gradients:
            self.step.rehearse(self.feed.sample(self.steps[0]))

    def _rehearses_widest(self) -> bool:
        """Pass the widest batches; False when one did not fit, and the next are smaller."""
        for planned in widest_steps(self.steps):
            batch = self.feed.prepare(planned)
            try:
                for one in with_and_without_padding(batch.micro_batches[0]):
                    self.step.rehearse(one)
            except PassTooLargeError as error:
                self._shrink(planned.step, halved(batch), error)
                return False
        return True

    def _report_compiled(self, step: int) -> None:
        if self.compiled is not None and (seconds := self.compiled.take_seconds()):
            self._report("compiled", step=step, seconds=seconds)

    def _check_weights(self) -> None:
        """Refuse to end with weights that the last steps have spoiled."""
        import torch

        finite = [torch.isfinite(local(p)).all() for p in self.parameters.values()]
        if self.parallel.anywhere(not torch.stack(finite).all()):
            raise NonFiniteError(
                f"step {self.last_step}: weights are NaN or infinite", step=self.last_step
            )

    def _run(
        self, batches: Iterable[StepBatch], writer: CheckpointWriter, notices: Notices
    ) -> str | None:
        """Take steps; return why they ended early and saved, if they did."""
        window = Window(self.parallel, self.skips)
        for batch in batches:
            planned = batch.planned
            self._settle(planned.step, writer, window)
            window.add(batch, self._move(batch))
            self._report_compiled(planned.step)
            self._acknowledge(writer)
            preempted = notices.agreed()
            evaluates = self._evaluates_after(planned)
            ends = planned.step == len(self.steps)
            updates = evaluates and self._saves_updates and not ends
            due = not ends and self.snapshots.is_due(planned.step, newest=writer.newest)
            saves = due or preempted is not None or updates
            if not (planned.step % LOG_EVERY == 0 or evaluates or saves or ends):
                continue
            facts = window.facts(planned, self.step)
            self._tell(planned, facts, window.skipped)
            evaluated: dict[str, Any] = {}
            if evaluates:
                evaluated, is_best = self._judge(planned.step)
                ends = ends or self.judge.stops
                saves = saves or (is_best and self.settings.keeps_best)
            # At the end nothing is saved: an attempt that goes on from there would train past it.
            # What follows broken batches is not yet known to be good, unless it was evaluated.
            if saves and not ends and (preempted or evaluates or not self.skips.in_a_row):
                pinned = self.judge.best_step if self.settings.keeps_best else None
                writer.save(planned.step, pinned=pinned)
                if updates:
                    writer.drain()
            if evaluates:
                self._tell_scores(evaluated)
            if ends:
                break
            if preempted:
                return preempted
            if facts is not None:
                window = Window(self.parallel, self.skips)
        return None

    def _settle(self, step: int, writer: CheckpointWriter, window: Window) -> None:
        """Wait for the checkpoint under way where a crash after the step would repeat too many."""
        if self.snapshots.must_settle(step, newest=writer.newest, settled=writer.settled):
            started = time.perf_counter()
            writer.drain()
            self._acknowledge(writer)
            window.leave_out(time.perf_counter() - started)

    def _acknowledge(self, writer: CheckpointWriter, *, wait: bool = False) -> None:
        for done in writer.acknowledged():
            saved = done.saved
            self._report(
                "checkpoint",
                step=saved.step,
                path=saved.folder.name,
                size_bytes=saved.size_bytes,
                seconds=done.stall_s,
                write_seconds=done.write_s,
            )
        for answer in writer.mirrored(wait=wait):
            self._report("mirrored", step=answer.step, seconds=answer.seconds, error=answer.error)

    def _tell(
        self, planned: PlannedStep, facts: Mapping[str, Any] | None, skipped: Sequence[int]
    ) -> None:
        if skipped:
            total, allowed = len(self.skips.steps), self.skips.allowed
            self._report(
                "skipped", step=planned.step, steps=list(skipped), total=total, allowed=allowed
            )
        if facts is not None:
            self._report("step", **facts)

    def _move(self, batch: StepBatch) -> StepOutcome:
        planned = batch.planned
        # Prepared before a pass was found to be too large.
        if batch.micro_batch_tokens != self.feed.micro_batch_tokens:
            batch = self.feed.prepare(planned)
        while (outcome := self._attempt(batch)) is None:
            free_cached(self.device.type)
            batch = self.feed.prepare(planned)
        if self.ema is not None:
            self.ema.update(planned.step)
        self.last_step = self.weights_step = planned.step
        return outcome

    def _attempt(self, batch: StepBatch) -> StepOutcome | None:
        """Take a step; None when it did not fit into the memory, and the next attempt is smaller.

        The failed pass is held by its exception until this returns.
        """
        try:
            return self.step(batch, batch.planned.learning_rate * self.judge.rate_scale)
        except PassTooLargeError as error:
            self._shrink(batch.planned.step, halved(batch), error)
        return None

    def _shrink(self, step: int, micro_batch_tokens: int, error: Exception) -> None:
        """Go on with smaller passes; on several ranks all have to start again to agree on them.

        Raises:
            PassTooLargeError: there are several ranks, and others wait for this one in vain.
        """
        self._adjust(micro_batch_tokens, writes=True)
        self._report_any("shrunk", step=step, micro_batch_tokens=micro_batch_tokens)
        if self.parallel.world_size > 1:
            raise error

    def _measure(self) -> None:
        budget = measure_budget(self, limit_bytes=self._memory_bytes)
        self._adjust(budget.micro_batch_tokens, writes=self.parallel.is_main)
        self._report("measured", **budget.to_json())

    def _adjust(self, micro_batch_tokens: int, *, writes: bool) -> None:
        self.adjustments = replace(self.adjustments, micro_batch_tokens=micro_batch_tokens)
        self.feed.micro_batch_tokens = micro_batch_tokens
        self._facts["adjustments"] = self.adjustments.to_json()
        if self._remember is not None:
            self._remember(self.adjustments, writes)

    def _judge(self, step: int) -> tuple[dict[str, Any], bool]:
        """Evaluate; return what to report, and whether this step is the best so far."""
        started = time.perf_counter()
        with self.ema.applied() if self.ema else nullcontext():
            metrics = self.evaluate()
        self._report_compiled(step)
        if broken := {name: value for name, value in metrics.items() if not math.isfinite(value)}:
            raise NonFiniteError(f"step {step}: evaluation gave {broken}", step=step)
        seconds = time.perf_counter() - started
        is_best = self.judge.hear(step, metrics)
        kept = {step, self.judge.best_step} if self.settings.keeps_best else {step}
        self._tallies = {at: tally for at, tally in self._tallies.items() if at in kept}
        return {"step": step, "metrics": metrics, "seconds": seconds}, is_best

    def _tell_scores(self, evaluated: Mapping[str, Any]) -> None:
        self._report("evaluated", data="evaluation", **evaluated)
        if self.judge.stops:
            self._report(
                "stopped",
                step=evaluated["step"],
                metric=self.judge.metric,
                best_step=self.judge.best_step,
            )

    @property
    def tally(self) -> Tally | None:
        """What the evaluation of the weights that the model holds has counted."""
        return self._tallies.get(self.weights_step)

    def _finish(self, checkpoints: CheckpointFolder) -> None:
        """Leave in the model what is registered: the best step's weights, or their average."""
        if not (self.parallel.is_main or self.parallel.in_step):
            return
        best = self.judge.best_step
        if self.settings.keeps_best and best is not None and best != self.weights_step:
            self.state.restore(checkpoints.verified(best))
            self.weights_step = best
        if self.ema is not None:
            self.ema.apply()

    def unite(self, build: Callable[[], PreTrainedModel | PeftModel]) -> None:
        """Leave the whole model in rank 0's `model` where ranks hold parts; all ranks call it.

        Args:
            build: makes the model as it was before training.
        """
        if self.parallel.in_step:
            trained = {**self.parameters, **dict(self.model.named_buffers())}
            united = united_model(trained, build if self.parallel.is_main else None)
            self.model = united or self.model

    def evaluate(self) -> dict[str, float]:
        """Score the evaluation split, each rank its share; all ranks get the metrics."""
        while (metrics := self._attempt_evaluation()) is None:
            free_cached(self.device.type)
        return metrics

    def _attempt_evaluation(self) -> dict[str, float] | None:
        """Score; None when a batch did not fit into the memory, and the next attempt's are smaller.

        Raises:
            OutOfMemoryError: the batch was the smallest.
        """
        limit = self.feed.micro_batch_tokens or self.settings.max_tokens
        try:
            tally = self.scorer.score(self.model, max_tokens=limit)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._shrink(
                self.last_step, half_of(limit, self.dataset), PassTooLargeError(str(error))
            )
            return None
        self._tallies[self.last_step] = tally
        return tally.metrics()

    def _evaluates_after(self, planned: PlannedStep) -> bool:
        every = self.settings.evaluate_every
        if planned.step == len(self.steps):
            return True
        return planned.ends_epoch if every is None else planned.step % every == 0

    def resume(self, checkpoints: CheckpointFolder) -> int:
        """Load the newest checkpoint that verifies, as rank 0 finds it; return its step or 0."""
        found = checkpoints.newest() if self.parallel.is_main else None
        step = self.parallel.from_main(found.step if found else 0)
        if step == 0:
            return 0
        found = found or checkpoints.at(step)
        self.state.restore(found)
        self.last_step = self.weights_step = step
        self._report("resumed", step=step, path=found.folder.name, ignored=list(found.ignored))
        return step


def _silent(event: EventKind, **fields: Any) -> None:
    """Report nothing: ranks other than 0."""
