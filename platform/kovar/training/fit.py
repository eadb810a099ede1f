"""Does a run fit into the memory of its workers? Decided from the base model's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kovar.config import format_size
from kovar.errors import SpecError
from kovar.models.forward import DeviceKind
from kovar.training.memory import TrainingMemory, estimate_training
from kovar.training.method import Lora, MethodSettings
from kovar.training.parallel import num_shards, num_shares
from kovar.training.tasks import TASKS

if TYPE_CHECKING:
    from kovar.models.size import LoraShape
    from kovar.resources import MemoryRoom
    from kovar.training.plan import RunPlan
    from kovar.training.spec import FineTuneSpec, TrainingSettings

TOLERANCE: Final = 1.2
"""Estimates are right within 20 %: a run is refused only if it cannot fit even so."""

NUM_LABELS: Final = 2
"""Unknown before the data is read, and without weight: the head is small."""


DEVICE_KINDS: Final[Mapping[str, DeviceKind]] = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}
"""Torch's name of the device that a request is for."""


@dataclass(frozen=True)
class MemoryFit:
    """What training needs per worker, held against what there is.

    Args:
        memory: the estimate.
        room: memory of the card, or of the worker's share of a machine; None when not known.
        largest_tokens: the largest `training.max_tokens` that fits; None when none does, or the
            room is not known.
    """

    memory: TrainingMemory
    room: MemoryRoom | None
    largest_tokens: int | None

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the room, where that is known."""
        return self.room is None or self.memory.total <= self.room.size_bytes


def fit_memory(
    spec: FineTuneSpec,
    plan: RunPlan,
    config: Mapping[str, Any],
    *,
    precision: str | None = None,
    lora: LoraShape | None = None,
) -> MemoryFit | None:
    """Estimate a run's memory where it is planned.

    Args:
        spec: the run.
        plan: where it goes.
        config: the base model's config.json.
        precision: another one than the plan's.
        lora: adapters of this shape instead of training all weights.

    Returns:
        None when the architecture or the precision is not known, or the task predicts tokens.
    """
    if TASKS[spec.task].predicted_share:
        return None
    precision = precision or plan.precision.precision
    if precision == "auto":
        return None
    num_workers = spec.resources.num_workers.min
    estimate = partial(
        estimate_training,
        config,
        # With the fewest workers each holds the most.
        num_workers=num_workers,
        max_length=spec.data.max_length,
        num_labels=NUM_LABELS,
        precision=precision,
        device_kind=DEVICE_KINDS[plan.request.kind],
        lora=lora or _lora_shape(spec.method),
        parallelism=spec.parallelism,
    )
    shares = num_shares(spec.parallelism, num_workers)
    memory = estimate(_passed_at_once(spec.training, shares))
    if memory is None:
        return None
    room = plan.room
    largest = None if room is None else memory.largest_token_budget(room.size_bytes)
    if spec.training.micro_batch_tokens == "auto":
        # What fits is measured by the workers; here it is estimated, at least a row.
        longest, wanted = spec.data.max_length, spec.training.max_tokens
        at_once = wanted if room is None else min(wanted, largest or shares * longest)
        memory = estimate(spec.training.model_copy(update={"max_tokens": at_once})) or memory
    return MemoryFit(memory, room, largest)


def _passed_at_once(training: TrainingSettings, num_shares: int) -> TrainingSettings:
    """Return the settings with the tokens that all workers pass through the model at a time."""
    if not isinstance(training.micro_batch_tokens, int):
        return training
    at_once = min(training.max_tokens, training.micro_batch_tokens * num_shares)
    return training.model_copy(update={"max_tokens": at_once})


def _lora_shape(method: MethodSettings) -> LoraShape | None:
    from kovar.models.size import LoraShape

    if not isinstance(method, Lora):
        return None
    targets = method.target_modules or ("all-linear",)
    return LoraShape(rank=method.rank, targets=targets, dropout=method.dropout)


def check_fit(spec: FineTuneSpec, fit: MemoryFit | None) -> None:
    """Refuse a run whose workers would run out of memory.

    Raises:
        SpecError: naming the largest token budget that fits, or the memory that is missing.
    """
    if fit is None or fit.room is None or fit.memory.total <= fit.room.size_bytes * TOLERANCE:
        return
    workers = spec.resources.num_workers.min
    shares = num_shares(spec.parallelism, workers)
    needs = f"training needs about {format_size(fit.memory.total)} per worker; there are {fit.room}"
    if fit.largest_tokens is not None and isinstance(spec.training.micro_batch_tokens, int):
        most = fit.largest_tokens // shares
        raise SpecError(
            needs,
            field="training.micro_batch_tokens",
            got=spec.training.micro_batch_tokens,
            allowed=f"at most {most}",
        )
    if fit.largest_tokens is not None:
        raise SpecError(
            needs,
            field="training.max_tokens",
            got=spec.training.max_tokens,
            allowed=f"at most {fit.largest_tokens}",
            hint=f"use training.micro_batch_tokens: "
            f"{fit.largest_tokens // shares} or auto, or more workers, "
            "which share the tokens",
        )
    on_cpu = spec.resources.worker.kind == "cpu"
    cuts = num_shards(spec.parallelism, workers) == 1 and workers > 1
    cut = "cut weights and optimizer state over the workers with parallelism: fsdp"
    reserve = f"reserve it with resources.worker.memory: {-(-fit.memory.total // (1 << 20))}MiB"
    raise SpecError(
        f"{needs}, too little for any token budget",
        field=f"resources.worker.{fit.room.field or ('memory' if on_cpu else 'type')}",
        got=format_size(fit.room.size_bytes),
        allowed=f"at least {format_size(fit.memory.total)}",
        hint=reserve
        if on_cpu
        else cut
        if cuts and fit.memory.moment != "version"
        else "ask for a larger card or more memory, or choose a smaller base model",
    )
