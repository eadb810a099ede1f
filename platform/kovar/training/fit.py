"""Does a run fit into the memory of its workers? Decided from the base model's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kovar.config import format_size
from kovar.errors import SpecError
from kovar.models.forward import DeviceKind
from kovar.models.varlen import varlen_obstacle
from kovar.training.memory import TrainingMemory, estimate_training
from kovar.training.method import Lora, MethodSettings
from kovar.training.padding import ATTENTION_DROPOUTS
from kovar.training.parallel import Ddp, num_shards, num_shares
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
        shares: where `training.micro_batch_tokens` limits what one worker passes through the model
            at a time: the workers that share the tokens.
    """

    memory: TrainingMemory
    room: MemoryRoom | None
    largest_tokens: int | None
    shares: int | None = None

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
        None when the architecture or the precision is not known.
    """
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
        lora=lora or lora_shape(spec.method),
        parallelism=spec.parallelism,
        predicted_share=TASKS[spec.task].predicted_share,
        several_documents=_shares_padded_rows(
            spec, config, DEVICE_KINDS[plan.request.kind], precision
        ),
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
    is_limited = isinstance(spec.training.micro_batch_tokens, int)
    return MemoryFit(memory, room, largest, shares if is_limited else None)


def check_known_base(spec: FineTuneSpec, config: Mapping[str, Any]) -> None:
    """Refuse a base of which its configuration tells already that it does not suit the run.

    Args:
        spec: the run.
        config: content of the base's config.json.

    Raises:
        ModelError: the task does not train such models.
        SpecError: rows are longer than the model has positions for.
    """
    from kovar.models import check_positions, find_architecture

    source = spec.model.source
    TASKS[spec.task].check_base(config, source=source)
    architecture = find_architecture(str(config["model_type"]))
    if architecture is not None and architecture.positions in config:
        most = architecture.max_positions(dict(config))
        check_positions(most, spec.data.max_length, source=source)


def _shares_padded_rows(
    spec: FineTuneSpec, config: Mapping[str, Any], device_kind: DeviceKind, precision: str
) -> bool:
    """Tell whether documents stand in one padded row, where a mask keeps them apart."""
    is_packed = spec.task == "causal-lm" and spec.data.packing and spec.data.messages is None
    return is_packed and not _goes_in_line(spec, config, device_kind, precision)


def _goes_in_line(
    spec: FineTuneSpec, config: Mapping[str, Any], device_kind: DeviceKind, precision: str
) -> bool:
    """Tell whether rows will stand in one line, as training/padding.py chooses."""
    if spec.training.padding_free != "auto" or varlen_obstacle(config) is not None:
        return spec.training.padding_free is True
    drops = spec.training.dropout != 0 and any(config.get(name) for name in ATTENTION_DROPOUTS)
    is_plain = not spec.training.compile and isinstance(spec.parallelism, Ddp) and not drops
    return is_plain and device_kind == "cuda" and precision not in ("fp32", "tf32")


def _passed_at_once(training: TrainingSettings, num_shares: int) -> TrainingSettings:
    """Return the settings with the tokens that all workers pass through the model at a time."""
    if not isinstance(training.micro_batch_tokens, int):
        return training
    at_once = min(training.max_tokens, training.micro_batch_tokens * num_shares)
    return training.model_copy(update={"max_tokens": at_once})


def lora_shape(method: MethodSettings) -> LoraShape | None:
    """Return the adapters that a method trains; None where it trains the weights themselves."""
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
    raise SpecError(
        f"{needs}, too little for any token budget",
        field=f"resources.worker.{fit.room.field or ('memory' if on_cpu else 'type')}",
        got=format_size(fit.room.size_bytes),
        allowed=f"at least {format_size(fit.memory.total)}",
        hint="; or ".join(_remedies(fit, cuts=cuts, on_cpu=on_cpu)),
    )


def _remedies(fit: MemoryFit, *, cuts: bool, on_cpu: bool) -> Iterator[str]:
    """Say what helps where no token budget does."""
    if cuts and fit.memory.moment != "version":
        yield "cut weights and optimizer state over the workers with parallelism: fsdp"
    if on_cpu:
        yield f"reserve it with resources.worker.memory: {-(-fit.memory.total // (1 << 20))}MiB"
    else:
        yield "ask for a larger card or more memory, or choose a smaller base model"
