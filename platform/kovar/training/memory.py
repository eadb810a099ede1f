"""How much memory one worker needs while it trains: computed from config.json, nothing is run.

The forward pass is written down (models/encoder.py) with what autograd keeps of it, and the moment
at which the most is alive is looked for, in a step as in what the engine does besides: scoring the
evaluation split, whose batches are whole on one worker, and at the end loading the version twice
to score it and to check it as it will be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from kovar.data import LADDER
from kovar.models.encoder import record
from kovar.models.forward import FP32_BYTES, Arithmetic, DeviceKind
from kovar.models.liveness import Alive, inference_moments, training_moments
from kovar.models.size import LoraShape, ModelSize, model_size
from kovar.training.spec import TrainingSettings

MiB: Final = 1 << 20

RUNTIME_BYTES: Final[dict[str, int]] = {
    # Resident memory of a Ray Train worker that has imported torch 2.13, transformers 5.23 and
    # Kovar and has run one product: measured with Ray 2.60; 171 MiB of it are shared libraries.
    "cpu": 534 * MiB,
    # The CUDA context (300 to 500 MiB from Volta to Hopper) and the workspace of cuBLAS, 8 MiB,
    # on Hopper 32 MiB: https://docs.nvidia.com/cuda/cublas/#results-reproducibility. Not measured.
    "cuda": 550 * MiB,
    # XLA reserves no context on the chip: the compiled program, taken as small.
    "xla": 64 * MiB,
}

Moment = Literal["step", "evaluation", "version"]

SCORING_TOKENS: Final = 2048
"""Padded tokens of a batch when the finished version is scored: `Runtime.predict`'s default."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that one worker needs at the moment when it needs the most.

    A step makes gradients while it uses activations up, so `gradients` may be less than those of
    all weights: they are counted as far as they exist at that moment.

    Args:
        weights: weights, with LoRA's factors.
        gradients: gradients of trained weights.
        optimizer: AdamW's two moments of each trained weight.
        activations: what autograd keeps, copies that autocast makes, gradients on their way, and
            scratch.
        copies: further copies of the model, while the finished version is checked.
        runtime: torch, Ray and their libraries; a GPU's context.
        moment: when that is: in a step, in an evaluation, or when the version is made.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
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
            + self.copies
            + self.runtime
        )

    def largest_token_budget(self, limit_bytes: int) -> int | None:
        """Return the largest `training.max_tokens` whose total is at most the limit.

        None when not even one row of the longest length fits.
        """
        low, high = self.workload.max_length, 2 * self.workload.max_length
        if self._total(low) > limit_bytes:
            return None
        while self._total(high) <= limit_bytes:
            low, high = high, 2 * high
            if high > 1 << 40:
                return low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._total(middle) <= limit_bytes else (low, middle)
        return low

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
    """What is needed to ask again with another budget."""

    max_tokens: int
    max_length: int
    num_workers: int
    weights: int
    optimizer: int
    runtime: int

    def tokens(self, moment: Moment) -> int:
        """Return the padded tokens that one worker computes at once."""
        match moment:
            case "step":
                return worker_tokens(self.max_tokens, self.max_length, self.num_workers)
            case "evaluation":
                # Ranks take whole batches in turn.
                budget = max(self.max_tokens, self.max_length)
                return worker_tokens(budget, self.max_length, 1)
            case "version":
                return max(SCORING_TOKENS, self.max_length)


@dataclass(frozen=True)
class Phase:
    """What one kind of moment holds beside weights, optimizer and runtime."""

    moment: Moment
    alive: tuple[Alive, ...]
    gradients: int = 0
    copies: int = 0


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
) -> TrainingMemory | None:
    """Estimate the memory of one worker; of the accelerator where there is one, else of the host.

    Args:
        config: content of config.json.
        settings: the token budget.
        num_workers: workers that share a batch.
        max_length: longest row in tokens.
        num_labels: classes.
        precision: as resolved, "fp32", "tf32", "bf16" or "fp16"; below fp32 the weights stay fp32.
        device_kind: torch's name of the device. For "xla" the figure is an upper bound: the
            compiler may fuse what autograd would keep.
        lora: trains adapters in place of all weights.

    Returns:
        None when the architecture or its activation function is not known.
    """
    size = model_size(config, num_labels=num_labels)
    if size is None or size.decoder:
        return None
    phases = _phases(
        config,
        size,
        num_workers=num_workers,
        length=max_length,
        arithmetic=Arithmetic.training(precision),
        device=device_kind,
        lora=lora,
    )
    if phases is None:
        return None
    adapters = size.adapters(lora) if lora else 0
    workload = Workload(
        max_tokens=settings.max_tokens,
        max_length=max_length,
        num_workers=num_workers,
        weights=(size.total + adapters) * FP32_BYTES,
        optimizer=2 * size.trainable(lora) * FP32_BYTES,
        runtime=RUNTIME_BYTES[device_kind],
    )
    return _memory(workload, phases, phases)


def _phases(
    config: Mapping[str, Any],
    size: ModelSize,
    *,
    num_workers: int,
    length: int,
    arithmetic: Arithmetic,
    device: DeviceKind,
    lora: LoraShape | None,
) -> tuple[Phase, ...] | None:
    shared = {"length": length, "device": device}
    step = record(config, size, arithmetic=arithmetic, training=True, lora=lora, **shared)
    score = record(config, size, arithmetic=arithmetic, training=False, lora=lora, **shared)
    serve = record(config, size, arithmetic=Arithmetic.serving("fp32"), training=False, **shared)
    if step is None or score is None or serve is None:
        return None
    buckets = size.trainable(lora) * FP32_BYTES if num_workers > 1 else 0
    return (
        Phase("step", training_moments(step, gradients_stay=num_workers > 1)),
        Phase("evaluation", inference_moments(score), gradients=buckets),
        # One copy in fp32 is the reference, another is loaded as it will be served.
        Phase(
            "version",
            inference_moments(serve),
            gradients=buckets,
            copies=2 * size.total * FP32_BYTES,
        ),
    )


def _memory(
    workload: Workload, phases: tuple[Phase, ...], considered: tuple[Phase, ...] | list[Phase]
) -> TrainingMemory:
    """Return the moment that needs the most."""
    phase, alive = max(
        ((phase, one) for phase in considered for one in phase.alive),
        key=lambda pair: (
            pair[1].at(workload.tokens(pair[0].moment)) + pair[0].gradients + pair[0].copies
        ),
    )
    return TrainingMemory(
        weights=workload.weights,
        gradients=round(alive.gradients) + phase.gradients,
        optimizer=workload.optimizer,
        activations=round(alive.activations.at(workload.tokens(phase.moment))),
        copies=phase.copies,
        runtime=workload.runtime,
        moment=phase.moment,
        phases=phases,
        workload=workload,
    )
