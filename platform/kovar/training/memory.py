"""How much memory one worker needs while it trains: computed from config.json, nothing is run.

The forward pass is written down (models/recorder.py) with what autograd keeps of it, and the moment
at which the most is alive is looked for, in a step as in what the engine does besides: scoring the
evaluation split, whose batches are whole on one worker, and at the end loading the version to
score it, and once more to check it as it will be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from kovar.data import LADDER
from kovar.inference.memory import ACCELERATOR_RUNTIME_BYTES
from kovar.models.forward import BF16_BYTES, FP32_BYTES, NOTHING, Arithmetic, DeviceKind
from kovar.models.heap import Churn
from kovar.models.language_size import trained_size
from kovar.models.liveness import Alive, inference_moments, training_moments
from kovar.models.recorder import record
from kovar.models.size import LoraShape, ModelSize
from kovar.training.parallel import (
    DDP,
    Ddp,
    Fsdp,
    ParallelismSettings,
    num_shards,
    num_shares,
    tensor_size,
)
from kovar.training.snapshot_plan import SnapshotPlan
from kovar.training.spec import TrainingSettings

MiB: Final = 1 << 20

WORKER_BYTES: Final = 556 * MiB
"""Resident memory of a Ray Train worker on a CPU that has trained a tiny model for two steps.

Measured with Ray 2.60, torch 2.13 and transformers 5.23.
"""

MAX_ROWS: Final = 1 << 24
"""The search for the largest budget ends here."""

Moment = Literal["step", "evaluation", "version"]

SCORING_TOKENS: Final = 2048
"""Padded tokens of a batch when the finished version is scored: `Runtime.predict`'s default."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that one worker needs at the moment when it needs the most.

    A step makes gradients while it uses activations up, so `gradients` may be less than those of
    all weights: they are counted as far as they exist at that moment.

    Args:
        weights: weights, with LoRA's factors; this worker's part where they are cut.
        gradients: gradients of trained weights.
        optimizer: AdamW's two moments of each trained weight; cut as the weights are.
        activations: what autograd keeps, copies that autocast makes, gradients on their way, and
            scratch.
        fragmentation: on a CPU, holes in the C library's heap (models/heap.py).
        copies: further copies: of gathered weights, where they are cut over the workers; on a CPU
            of what a checkpoint holds, while it is written; of the whole model, while the finished
            version is checked.
        runtime: torch, Ray and their libraries; a GPU's context.
        moment: when that is: in a step, in an evaluation, or when the version is made.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    fragmentation: int
    copies: int
    runtime: int
    moment: Moment
    phases: tuple[Phase, ...]
    workload: Workload

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.fragmentation
            + self.copies
            + self.runtime
        )

    def largest_token_budget(self, limit_bytes: int) -> int | None:
        """Return the largest `training.max_tokens` whose total is at most the limit.

        In steps of one row of the longest length. On a CPU a still larger one may fit, beyond the
        size at which tensors leave the heap. None when not even one row fits.
        """
        length = self.workload.max_length
        low, high = 1, 2
        if self._total(length) > limit_bytes:
            return None
        while self._total(high * length) <= limit_bytes:
            low, high = high, 2 * high
            if high > MAX_ROWS:
                return low * length
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._total(middle * length) <= limit_bytes
            low, high = (middle, high) if fits else (low, middle)
        return low * length

    def at(self, moment: Moment) -> TrainingMemory:
        """Return what another moment needs."""
        return _memory(
            self.workload, self.phases, [one for one in self.phases if one.moment == moment]
        )

    def _total(self, max_tokens: int) -> int:
        workload = replace(self.workload, max_tokens=max_tokens)
        return _memory(workload, self.phases, self.phases).total


@dataclass(frozen=True)
class Workload:
    """What is needed to ask again with another budget.

    Args:
        in_passes: whether the tokens that a worker passes through the model at a time are limited.
    """

    max_tokens: int
    max_length: int
    num_workers: int
    weights: int
    optimizer: int
    runtime: int
    snapshot: int = 0
    in_passes: bool = False

    def tokens(self, moment: Moment) -> int:
        """Return the padded tokens that one worker computes at once."""
        match moment:
            case "step":
                return worker_tokens(self.max_tokens, self.max_length, self.num_workers)
            case "evaluation":
                # Ranks take whole batches in turn, none larger than a pass of a step may be.
                at_once = self.max_tokens // (self.num_workers if self.in_passes else 1)
                budget = max(at_once, self.max_length)
                return worker_tokens(budget, self.max_length, 1)
            case "version":
                return max(SCORING_TOKENS, self.max_length)

    def copies(self, moment: Moment) -> int:
        """Return the bytes of a checkpoint's copy; training gives it back before the version."""
        return 0 if moment == "version" else self.snapshot


@dataclass(frozen=True)
class Phase:
    """What one kind of moment holds beside weights, optimizer and runtime."""

    moment: Moment
    alive: tuple[Alive, ...]
    gradients: int = 0
    copies: int = 0
    churn: Churn | None = None
    """What leaves holes in the heap; None where it does not matter."""

    def holes(self, num_tokens: int) -> float:
        """Return the bytes that the heap cannot use."""
        return 0.0 if self.churn is None else self.churn.holes_bytes(num_tokens)


def worker_tokens(max_tokens: int, max_length: int, num_workers: int) -> int:
    """Return the most padded tokens of one worker's share of a batch, over all padded lengths.

    The rows of a batch are dealt like cards, so a worker may have one more than another.
    """
    rungs = [rung for rung in LADDER if rung < max_length] + [max_length]
    return max(-(-max(1, max_tokens // rung) // num_workers) * rung for rung in rungs)


def estimate_training(
    config: Mapping[str, Any],
    settings: TrainingSettings,
    *,
    num_workers: int,
    max_length: int,
    num_labels: int,
    precision: str,
    device_kind: DeviceKind,
    lora: LoraShape | None = None,
    parallelism: ParallelismSettings = DDP,
    predicted_share: float = 0.0,
    several_documents: bool = False,
) -> TrainingMemory | None:
    """Estimate the memory of one worker; of the accelerator where there is one, else of the host.

    Args:
        config: content of config.json.
        settings: the token budget, and the format that weights are kept in.
        num_workers: workers that share a batch.
        max_length: longest row in tokens.
        num_labels: classes.
        precision: as resolved, "fp32", "tf32", "bf16", "fp16" or "fp8": tensors are those of bf16.
        device_kind: torch's name of the device. For "xla" the figure is an upper bound: the
            compiler may fuse what autograd would keep.
        lora: trains adapters in place of all weights.
        parallelism: how the workers share the model. Layers that several workers compute keep
            fewer activations than are counted here.
        predicted_share: share of the tokens that a language model predicts, at most; 0 for a
            classifier.
        several_documents: whether padded rows hold several, which a mask keeps apart.

    Returns:
        None when the architecture or its activation function is not known.
    """
    size = trained_size(config, num_labels=num_labels, predicted_share=predicted_share)
    if size is None or (size.decoder and not predicted_share):
        return None
    shards = num_shards(parallelism, num_workers)
    arithmetic = Arithmetic.training(precision, settings.weights)
    phases = _phases(
        config,
        size,
        length=max_length,
        arithmetic=arithmetic,
        device=device_kind,
        lora=lora,
        predicted_share=predicted_share or None,
        recomputes=settings.gradient_checkpointing,
        several_documents=several_documents,
        sharing=_Sharing.of(
            size,
            parallelism,
            num_workers,
            lora=lora,
            precision=precision,
            gradient_bytes=(
                BF16_BYTES if arithmetic.weight_bytes == BF16_BYTES and lora is None else FP32_BYTES
            ),
            keeps_tables=device_kind == "cpu" and lora is None and not settings.compile,
        ),
    )
    if phases is None:
        return None
    beside = size.adapters(lora) + size.copied_head if lora else 0
    workload = Workload(
        max_tokens=settings.max_tokens,
        max_length=max_length,
        num_workers=num_shares(parallelism, num_workers),
        weights=(_weight_bytes(size, lora, settings) + beside * FP32_BYTES) // shards,
        optimizer=2 * size.trainable(lora) * FP32_BYTES // shards,
        runtime=(WORKER_BYTES if device_kind == "cpu" else ACCELERATOR_RUNTIME_BYTES[device_kind]),
        in_passes=settings.micro_batch_tokens is not None,
    )
    period = SnapshotPlan(settings.checkpoint_every, device_kind).period
    saves = settings.max_steps is None or settings.max_steps > period
    if device_kind == "cpu" and saves:
        # Trained weights and two moments of each; an accelerator's copy is in its host's memory.
        workload = replace(workload, snapshot=workload.optimizer * 3 // 2)
    return _memory(workload, phases, phases)


@dataclass(frozen=True)
class _Sharing:
    """What workers hold because they share a model, in bytes.

    Args:
        buckets: gradients that stay in DDP's buckets between steps.
        gathered: weights that are whole for a while.
        gradients: in a step, where they are cut: this worker's part, and those on their way.
        casts: whether weights are gathered in the format that is computed in.
        tables: the gradients of embeddings, which a CPU keeps between steps (models/embedding.py).
    """

    buckets: int = 0
    tables: int = 0
    gathered: int = 0
    gradients: int | None = None
    casts: bool = False

    @classmethod
    def of(
        cls,
        size: ModelSize,
        parallelism: ParallelismSettings,
        num_workers: int,
        *,
        lora: LoraShape | None,
        precision: str,
        gradient_bytes: int,
        keeps_tables: bool,
    ) -> _Sharing:
        trained = size.trainable(lora) * gradient_bytes
        if isinstance(parallelism, Ddp):
            tables = size.embedding * gradient_bytes if keeps_tables and not size.tied else 0
            return cls(buckets=trained) if num_workers > 1 else cls(tables=tables)
        shards, group = num_workers, tensor_size(parallelism, num_workers)
        if num_shares(parallelism, num_workers) == 1:
            return cls(gradients=trained // shards)
        outer = size.total - size.layers
        # The block at work, and the one that travels meanwhile.
        blocks = 2 * size.layer
        if isinstance(parallelism, Fsdp) and not parallelism.reshard:
            blocks = size.layers
        itemsize = 2 if precision in ("bf16", "fp16") else FP32_BYTES
        on_their_way = 0 if lora else (outer + size.layer) * itemsize // group
        return cls(
            gathered=(outer + blocks) * itemsize // group,
            gradients=trained // shards + on_their_way,
            casts=True,
        )


def _weight_bytes(size: ModelSize, lora: LoraShape | None, settings: TrainingSettings) -> int:
    """Return the bytes of the base's weights: trained ones in bf16 have a second half."""
    is_frozen = lora is not None
    return size.total * (BF16_BYTES if settings.weights == "bf16" and is_frozen else FP32_BYTES)


def _phases(
    config: Mapping[str, Any],
    size: ModelSize,
    *,
    length: int,
    arithmetic: Arithmetic,
    device: DeviceKind,
    lora: LoraShape | None,
    predicted_share: float | None,
    recomputes: bool,
    several_documents: bool,
    sharing: _Sharing,
) -> tuple[Phase, ...] | None:
    passed = partial(
        record, config, size, length=length, device=device, predicted_share=predicted_share
    )
    halves = arithmetic.weight_bytes == BF16_BYTES and lora is None
    if sharing.casts:
        # Gathered weights have the format that is computed in, and so has all between them.
        arithmetic = Arithmetic(arithmetic.matrix_bytes, arithmetic.matrix_bytes)
    step = passed(
        arithmetic=arithmetic,
        training=True,
        lora=lora,
        recomputes=recomputes,
        several_documents=several_documents,
    )
    score = passed(arithmetic=arithmetic, training=False, lora=lora)
    serve = passed(arithmetic=Arithmetic.serving("fp32"), training=False)
    if step is None or score is None or serve is None:
        return None
    moments = training_moments(step, gradients_stay=sharing.buckets > 0)
    if sharing.tables:
        # They are part of all gradients, and there before and after the others are.
        most = max(alive.gradients for alive in moments)
        moments = tuple(
            replace(alive, gradients=min(most, alive.gradients + sharing.tables))
            for alive in moments
        )
    if sharing.gradients is not None:
        moments = tuple(replace(alive, gradients=sharing.gradients) for alive in moments)
    if halves:
        # Of all weights and gradients in fp32, while they are updated.
        moments = (*moments, Alive(NOTHING, 2 * size.trainable(lora) * FP32_BYTES))
    return (
        Phase(
            "step",
            moments,
            copies=sharing.gathered,
            churn=Churn(step) if device == "cpu" else None,
        ),
        Phase(
            "evaluation",
            inference_moments(score),
            gradients=sharing.buckets + sharing.tables,
            copies=sharing.gathered,
        ),
        # In fp32 as the reference; then, in its place, as it will be served.
        Phase(
            "version",
            inference_moments(serve),
            gradients=sharing.buckets + sharing.tables,
            # What was cut lies whole in the memory of the first worker's host.
            copies=(2 if sharing.gradients is not None and device == "cpu" else 1)
            * size.total
            * FP32_BYTES,
        ),
    )


def _memory(
    workload: Workload, phases: tuple[Phase, ...], considered: tuple[Phase, ...] | list[Phase]
) -> TrainingMemory:
    """Return the moment that needs the most."""

    def needed(pair: tuple[Phase, Alive]) -> float:
        phase, alive = pair
        tokens = workload.tokens(phase.moment)
        copies = phase.copies + workload.copies(phase.moment)
        return alive.at(tokens) + phase.gradients + copies + holes[phase.moment]

    holes = {one.moment: one.holes(workload.tokens(one.moment)) for one in considered}
    phase, alive = max(((phase, one) for phase in considered for one in phase.alive), key=needed)
    return TrainingMemory(
        weights=workload.weights,
        gradients=round(alive.gradients) + phase.gradients,
        optimizer=workload.optimizer,
        activations=round(alive.activations.at(workload.tokens(phase.moment))),
        fragmentation=round(holes[phase.moment]),
        copies=phase.copies + workload.copies(phase.moment),
        runtime=workload.runtime,
        moment=phase.moment,
        phases=phases,
        workload=workload,
    )
