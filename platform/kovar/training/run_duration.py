"""How long a planned run takes on the chip where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kovar.resources import accelerator
from kovar.training.duration import Duration, UnknownDuration, estimate_duration
from kovar.training.fit import NUM_LABELS, lora_shape
from kovar.training.tasks import TASKS

if TYPE_CHECKING:
    from kovar.data.facts import DataFacts, UnknownData
    from kovar.training.plan import RunPlan
    from kovar.training.spec import FineTuneSpec


def run_duration(
    spec: FineTuneSpec,
    plan: RunPlan,
    config: Mapping[str, Any],
    facts: DataFacts | UnknownData,
    num_workers: int,
) -> Duration | UnknownDuration:
    """Estimate the seconds of a run.

    Args:
        spec: the run.
        plan: where it goes.
        config: the base model's config.json.
        facts: rows and tokens of its data.
        num_workers: workers that share it.
    """
    chip = plan.precision
    if chip.precision == "auto":
        return UnknownDuration("the GPU's type is not known")
    card = next((name for name in getattr(plan.request, "type", ())), None)
    if plan.request.kind != "cpu" and accelerator(card) is None:
        return UnknownDuration(f"the speed of {card or 'the GPU'} is not known")
    return estimate_duration(
        config,
        spec.training,
        facts,
        num_workers=num_workers,
        num_labels=NUM_LABELS,
        precision=chip.precision,
        accelerator=accelerator(card),
        # The engine computes on one card, whatever their number.
        chips=min(1.0, getattr(plan.request, "count", 1.0)),
        cpus=plan.request.cpus,
        lora=lora_shape(spec.method),
        predicted_share=TASKS[spec.task].predicted_share,
    )
