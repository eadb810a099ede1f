"""How much memory, disk and time one entry of a plan takes, as far as it can be known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.batch import EvaluateSpec, PredictSpec
from kovar.batch.plan import placed_workers
from kovar.data.facts import DataFacts, UnknownData, read_facts
from kovar.errors import NotFoundError
from kovar.inference.memory import ServingMemory
from kovar.models import ModelSpec, known_config
from kovar.models.forward import Arithmetic
from kovar.models.size import LoraShape
from kovar.planning.entry import Entry
from kovar.precision import PlannedPrecision
from kovar.resources import Cluster, Placement
from kovar.serving import ServingSpec
from kovar.serving.access.exposure import exposure_notes
from kovar.serving.environment import is_behind_haproxy
from kovar.serving.plan import ReplicaPlan, placed_replicas
from kovar.serving.versions import further_weights
from kovar.settings import Settings
from kovar.training import FineTuneSpec
from kovar.training.disk import DiskEstimate, estimate_disk
from kovar.training.duration import Duration, UnknownDuration
from kovar.training.fit import (
    NUM_LABELS,
    MemoryFit,
    check_fit,
    check_known_base,
    fit_memory,
    lora_shape,
)
from kovar.training.memory import TrainingMemory
from kovar.training.method import Full, Lora
from kovar.training.padding import check_padding
from kovar.training.parallel import check_tensor_plan
from kovar.training.plan import RunPlan, placed_run
from kovar.training.run_duration import run_duration
from kovar.training.tasks import TASKS
from kovar.tuning import Sweep
from kovar.tuning.exclusion import Configurations, Excluded
from kovar.tuning.forecast import Forecast, forecast
from kovar.tuning.groups import TrialGroup
from kovar.tuning.plan import at_once_of, check_price, price_of_group

if TYPE_CHECKING:
    from kovar.registry import Registry

_UNKNOWN = "memory and duration: known once {} is downloaded"

LORA = LoraShape(rank=16)
"""The adapters whose memory is shown beside that of training all weights."""


@dataclass(frozen=True)
class Estimate:
    """What one entry takes where it was placed.

    Args:
        precisions: as resolved, without repetition.
        fit: memory of a training worker; of the trial that needs most. None when not known.
        replica: memory of a replica.
        methods: memory per worker in bytes, by method and precision, for comparison.
        disk: of one run; None when the model is not known.
        duration: of the whole entry: of all trials, as many at once as fit.
        work_s: seconds of all trials one after the other, lowest and highest.
        trials: of a sweep; None for everything else.
        price_per_hour: US dollars for what one trial holds of its nodes; None when not known.
        notes: what could not be known, and why.
    """

    precisions: tuple[PlannedPrecision, ...]
    fit: MemoryFit | None = None
    replica: ReplicaPlan | None = None
    methods: Mapping[str, int] | None = None
    disk: DiskEstimate | None = None
    duration: Duration | UnknownDuration | None = None
    work_s: tuple[float, float] | None = None
    trials: Forecast | None = None
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimator:
    """Estimates the entries of one plan.

    Args:
        placement: where everything goes.
        cluster: the node types.
        settings: where caches are.
        registry: opened only if an entry names a registered version.
    """

    placement: Placement
    cluster: Cluster
    settings: Settings
    registry: Registry | None

    def estimate(self, entry: Entry) -> Estimate:
        """Estimate one entry.

        Raises:
            SpecError: the chip cannot compute in the precision, or has too little memory.
        """
        name = entry.demand.name
        match entry.work:
            case FineTuneSpec() as spec:
                run = placed_run(spec, name, self.placement, self.cluster)
                return self._training(entry, spec, run)
            case TrialGroup() as group:
                return self._trials(entry, group)
            case ServingSpec() as spec:
                return self._serving(entry, spec)
            case EvaluateSpec() | PredictSpec() as job:
                plan = placed_workers(job, name, self.placement, self.cluster)
                return Estimate((plan.precision,))

    def _training(self, entry: Entry, spec: FineTuneSpec, run: RunPlan) -> Estimate:
        config = self._configurations(entry).of(spec.model)
        if config is None:
            return Estimate((run.precision,), notes=(_UNKNOWN.format(spec.model.source),))
        check_known_base(spec, config)
        check_tensor_plan(spec, config)
        check_padding(spec.training.padding_free, config)
        fit = fit_memory(spec, run, config)
        check_fit(spec, fit)
        facts = self._facts(entry, spec)
        duration = run_duration(spec, run, config, facts, self._placed(entry))
        disk = estimate_disk(
            config,
            spec.training,
            num_labels=NUM_LABELS,
            data=_known(facts),
            lora=lora_shape(spec.method),
            merges=isinstance(spec.method, Lora) and spec.method.merge,
            predicted_share=TASKS[spec.task].predicted_share,
        )
        return Estimate(
            (run.precision,),
            fit=fit,
            methods=_methods(spec, run, config),
            disk=disk,
            duration=duration,
            work_s=(duration.low_s, duration.high_s) if isinstance(duration, Duration) else None,
            notes=() if fit else (f"memory: unknown for {config.get('model_type')} models",),
        )

    def _trials(self, entry: Entry, group: TrialGroup) -> Estimate:
        assert entry.sweep is not None  # noqa: S101 (for the type checker: trials have a sweep)
        named = replace(group, demand=entry.demand)
        configurations = self._configurations(entry)
        check_price(entry.sweep, named, self.placement, self.cluster)
        found = forecast(
            named,
            self.placement,
            self.cluster,
            configurations,
            num_at_once=at_once_of(named, self.placement),
            cache_dir=self.settings.cache_dir,
        )
        spec, run = group.trials[0].spec, found.runs[0]
        config = configurations.of(spec.model)
        notes = [*_excluded(entry.sweep, group), *_beyond_the_budget(entry.sweep, found)]
        if config is None:
            notes.append(_UNKNOWN.format(spec.model.source))
        elif found.fit is None:
            notes.append(f"memory: unknown for {config.get('model_type')} models")
        return Estimate(
            tuple(dict.fromkeys(one.precision for one in found.runs)),
            fit=found.fit,
            methods=None if config is None else _methods(spec, run, config),
            disk=found.disk,
            duration=found.duration,
            work_s=found.work_s,
            trials=found,
            price_per_hour=price_of_group(named, self.placement, self.cluster),
            notes=tuple(notes),
        )

    def _serving(self, entry: Entry, spec: ServingSpec) -> Estimate:
        config, max_length, more_weights, notes = self._served(spec)
        access = spec.access.resolved(self.settings.api_keys)
        notes += exposure_notes(
            entry.document.data,
            has_keys=access.keys is not None,
            max_body_bytes=spec.limits.max_body_bytes,
            behind_haproxy=is_behind_haproxy(os.environ),
        )
        replica = placed_replicas(
            spec,
            entry.demand.name,
            self.placement,
            self.cluster,
            config=config,
            max_length=max_length,
            more_weights=more_weights,
        )
        return Estimate((replica.precision,), replica=replica, notes=notes)

    def _served(
        self, spec: ServingSpec
    ) -> tuple[Mapping[str, Any] | None, int, int, tuple[str, ...]]:
        """Look the served version up; a model that is yet to be trained is no mistake here."""
        if self.registry is None:
            return None, 1, 0, ()
        try:
            version = self.registry.version(spec.model, spec.version)
            more_weights = further_weights(spec, self.registry)
        except NotFoundError as problem:
            return None, 1, 0, (f"memory: known once there is such a version: {problem.message}",)
        named = ModelSpec(base=f"version:{version.model}@{version.digest}")
        config = known_config(named, base_dir=Path(), registry=self.registry)
        return config, version.manifest.signature.max_length or 1, more_weights, ()

    def _configurations(self, entry: Entry) -> Configurations:
        return Configurations(entry.base_dir, self.registry)

    def _facts(self, entry: Entry, spec: FineTuneSpec) -> DataFacts | UnknownData:
        return read_facts(
            spec.data,
            layout=TASKS[spec.task].layout,
            cache_dir=self.settings.cache_dir,
            base_dir=entry.base_dir,
        )

    def _placed(self, entry: Entry) -> int:
        """Count the workers; on nodes that the plan cannot see, the fewest that are asked for."""
        return self.placement.num_workers(entry.demand.name) or entry.demand.num_min


def memory_parts(memory: TrainingMemory | ServingMemory) -> dict[str, int]:
    """List what the memory is needed for, in bytes, without what is not there."""
    names = (
        "weights", "gradients", "optimizer", "activations", "kv_cache", "fragmentation", "copies",
        "runtime",
    )  # fmt: skip
    return {name: size for name in names if (size := getattr(memory, name, 0))}


def _known(facts: DataFacts | UnknownData) -> DataFacts | None:
    return facts if isinstance(facts, DataFacts) else None


def _excluded(sweep: Sweep, group: TrialGroup) -> Iterator[str]:
    """Say which trials cannot run on their hardware, those with one reason together."""
    reasons: dict[str, list[Excluded]] = {}
    for one in group.excluded:
        reasons.setdefault(one.reason, []).append(one)
    for reason, those in reasons.items():
        if sweep.trials:
            what = (
                f"trial{'s' if len(those) > 1 else ''} {shortened(o.trial.number for o in those)}"
            )
        else:
            what = f"such as {', '.join(f'{k}: {v}' for k, v in those[0].trial.point.items())}"
        yield f"excluded: {what}: {reason}"


def _beyond_the_budget(sweep: Sweep, found: Forecast) -> Iterator[str]:
    hours = sweep.spec.budget.hours
    if hours is not None and isinstance(found.duration, Duration):
        if found.duration.low_s > hours * 3600:
            yield f"budget.hours: {hours:g} ends the sweep before its last trial"
        elif found.duration.high_s > hours * 3600:
            yield f"budget.hours: {hours:g} may end the sweep before its last trial"


def shortened(numbers: Iterable[int]) -> str:
    """Write numbers with their runs drawn together: "1 to 4, 9"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join(" to ".join(map(str, one)) for one in ranges)


def _methods(spec: FineTuneSpec, plan: RunPlan, config: Mapping[str, Any]) -> dict[str, int]:
    """Tell the memory per worker of each method at each precision that the chip computes in."""
    full = spec.model_copy(update={"method": Full()})
    found: dict[str, int] = {}
    known: dict[tuple[str, Arithmetic], MemoryFit | None] = {}
    for precision in plan.precision.supported:
        for method, lora in (("full", None), (f"LoRA rank {LORA.rank}", LORA)):
            # Precisions whose tensors have the same formats need the same.
            same = method, Arithmetic.training(precision, spec.training.weights)
            if same not in known:
                known[same] = fit_memory(full, plan, config, precision=precision, lora=lora)
            if (fit := known[same]) is not None:
                found[f"{method}, {precision}"] = fit.memory.total
    return found
