"""How long a run takes: its floating-point operations over what the chips achieve, as a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.data.facts import DataFacts, UnknownData
from kovar.models.language_size import trained_size
from kovar.models.size import LoraShape, ModelSize
from kovar.training.spec import TrainingSettings

if TYPE_CHECKING:
    from kovar.resources.accelerators import Accelerator

UTILIZATION: Final = (0.1, 0.5)
"""Share of an accelerator's peak that fine-tuning reaches. Well-tuned pretraining of large models
reaches 0.46 (PaLM, https://arxiv.org/abs/2204.02311, table 3); small encoders and batches keep a
large chip waiting for its next kernel."""

CPU_FLOPS: Final[dict[str, tuple[float, float]]] = {
    "fp32": (2e10, 1e11),
    "bf16": (3e10, 2e11),
}
"""FLOP/s of one core in training, by precision. Measured with MiniLM on a core of a Xeon with AMX:
8e10 in fp32 and 1.5e11 in bf16. The low end is a core with AVX2 alone, or bf16 without AMX."""

STARTUP_S: Final = (10.0, 90.0)
"""Starting Ray and workers, loading and tokenizing before; scoring and saving the version after."""

PADDING: Final = (1.0, 1.1)
"""Padded tokens for each token: batches of like length leave 0.7 % of the movie reviews' tokens."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A range of seconds.

    Args:
        low_s: at least.
        high_s: at most.
        reason: what it rests on, as a sentence.
    """

    low_s: float
    high_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class UnknownDuration:
    """No estimate.

    Args:
        reason: why, as a sentence.
    """

    reason: str


def estimate_duration(
    config: Mapping[str, Any],
    settings: TrainingSettings,
    data: DataFacts | UnknownData,
    *,
    num_workers: int,
    num_labels: int,
    precision: str,
    accelerator: Accelerator | None = None,
    chips: float = 1.0,
    cpus: float = 1.0,
    lora: LoraShape | None = None,
    predicted_share: float = 0.0,
) -> Duration | UnknownDuration:
    """Estimate the seconds from submission to the registered version.

    Args:
        config: content of config.json.
        settings: epochs, steps and evaluations.
        data: rows and tokens.
        num_workers: workers that share each batch; their communication is not counted.
        num_labels: classes.
        precision: as resolved.
        accelerator: what each worker computes on; None for CPUs.
        chips: accelerators of one worker, or its share of one.
        cpus: CPUs of one worker, where there is no accelerator.
        lora: trains adapters in place of all weights.
        predicted_share: share of the tokens that a language model predicts; 0 for a classifier.
    """
    size = trained_size(config, num_labels=num_labels, predicted_share=predicted_share)
    if size is None:
        return UnknownDuration(f"the size of {config.get('model_type')} models is not known")
    if isinstance(data, UnknownData):
        return UnknownDuration(data.reason)
    if accelerator is None:
        slow, fast = CPU_FLOPS.get(precision, CPU_FLOPS["fp32"])
        rates = (slow * cpus, fast * cpus)
        what = f"{slow / 1e9:.0f} to {fast / 1e9:.0f} GFLOP/s per core"
    else:
        peak = accelerator.flops.get(precision)
        if peak is None:
            return UnknownDuration(f"the {precision} rate of {accelerator.name} is not published")
        rates = (UTILIZATION[0] * peak * chips, UTILIZATION[1] * peak * chips)
        shares = " to ".join(f"{100 * share:.0f}" for share in UTILIZATION)
        what = f"{shares} % of the {peak / 1e12:,.0f} TFLOP/s of {accelerator.name}"
    few, many = (
        training_flops(
            size,
            settings,
            data,
            length=length * padding,
            lora=lora,
            predicted_share=predicted_share,
        )
        for length, padding in zip((data.low_length, data.high_length), PADDING, strict=True)
    )
    return Duration(
        low_s=STARTUP_S[0] + few / (rates[1] * num_workers),
        high_s=STARTUP_S[1] + many / (rates[0] * num_workers),
        reason=f"{data.origin}; {what}",
    )


def flops_per_token(
    size: ModelSize,
    *,
    length: float,
    lora: LoraShape | None = None,
    predicted_share: float = 0.0,
) -> float:
    """Return the operations that training does for one token of rows of this length.

    A weight costs 2 in the forward pass, 2 for the gradient of its input and 2 for its own, which
    frozen weights do not have (https://arxiv.org/abs/2001.08361, section 2.1); attention costs
    12 × layers × width × length (https://arxiv.org/abs/2204.02311, appendix B). The matrix onto the
    vocabulary multiplies the tokens that are predicted.
    """
    frozen = lora is not None
    outputs = size.output.num_weights * predicted_share if size.output else 0.0
    dense = (4 if frozen else 6) * (size.matrix_parameters + outputs)
    adapters = 6 * size.adapters(lora) if lora else 0
    return dense + adapters + 12 * size.num_layers * size.num_heads * size.head_dim * length


def training_flops(
    size: ModelSize,
    settings: TrainingSettings,
    data: DataFacts,
    *,
    length: float,
    lora: LoraShape | None = None,
    predicted_share: float = 0.0,
) -> float:
    """Return the operations of all steps and evaluations.

    Args:
        size: the model.
        settings: epochs, steps and evaluations.
        data: rows of both splits.
        length: padded tokens of the mean row.
        lora: trains adapters in place of all weights.
        predicted_share: share of the tokens that a language model predicts.
    """
    steps_per_epoch = max(1, math.ceil(data.num_train * length / settings.max_tokens))
    num_steps = settings.epochs * steps_per_epoch
    tokens = settings.epochs * data.num_train * length
    if settings.max_steps is not None and settings.max_steps < num_steps:
        tokens *= settings.max_steps / num_steps
        num_steps = settings.max_steps
    every = settings.evaluate_every or steps_per_epoch
    # One more through the runtime that scores the finished version.
    evaluations = math.ceil(num_steps / every) + 1
    per_token = flops_per_token(size, length=length, lora=lora, predicted_share=predicted_share)
    forward = flops_per_token(size, length=length, predicted_share=predicted_share) / 3
    return tokens * per_token + evaluations * data.num_evaluation * length * forward
