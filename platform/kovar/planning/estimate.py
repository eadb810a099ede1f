"""How much memory, disk and time one entry of a plan takes, as far as it can be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from kovar.resources import Cluster, Placement, accelerator
from kovar.serving import ServingSpec
from kovar.serving.plan import ReplicaPlan, placed_replicas
from kovar.settings import Settings
from kovar.training import FineTuneSpec
from kovar.training.disk import DiskEstimate, estimate_disk
from kovar.training.duration import Duration, UnknownDuration, estimate_duration
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
from kovar.training.tasks import TASKS
from kovar.tuning.plan import TrialGroup, placed_trials

if TYPE_CHECKING:
    from kovar.registry import Registry

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
        notes: what could not be known, and why.
    """

    precisions: tuple[PlannedPrecision, ...]
    fit: MemoryFit | None = None
    replica: ReplicaPlan | None = None
    methods: Mapping[str, int] | None = None
    disk: DiskEstimate | None = None
    duration: Duration | UnknownDuration | None = None
    work_s: tuple[float, float] | None = None
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
                return self._training(entry, [(spec, run)])
            case TrialGroup() as group:
                named = TrialGroup(entry.demand, group.trials)
                runs = placed_trials([named], self.placement, self.cluster)
                return self._training(entry, [(t.spec, runs[t.number]) for t in group.trials])
            case ServingSpec() as spec:
                return self._serving(entry, spec)
            case EvaluateSpec() | PredictSpec() as job:
                plan = placed_workers(job, name, self.placement, self.cluster)
                return Estimate((plan.precision,))

    def _training(self, entry: Entry, runs: Sequence[tuple[FineTuneSpec, RunPlan]]) -> Estimate:
        spec, run = runs[0]
        precisions = tuple(dict.fromkeys(plan.precision for _, plan in runs))
        config = self._config(entry, spec)
        if config is None:
            note = f"memory and duration: known once {spec.model.source} is downloaded"
            return Estimate(precisions, notes=(note,))
        for one, _ in runs:
            check_known_base(one, config)
            check_tensor_plan(one, config)
            check_padding(one.training.padding_free, config)
        fits = [fit_memory(one, plan, config) for one, plan in runs]
        for (one, _), fit in zip(runs, fits, strict=True):
            check_fit(one, fit)
        known = [fit for fit in fits if fit is not None]
        facts = self._facts(entry, spec)
        times = [
            _duration(one, plan, config, facts, self._num_workers(entry)) for one, plan in runs
        ]
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
            precisions,
            fit=max(known, key=lambda fit: fit.memory.total, default=None),
            methods=_methods(spec, run, config),
            disk=disk,
            duration=_together(times, at_once=self._at_once(entry)),
            work_s=_one_after_the_other(times),
            notes=() if known else (f"memory: unknown for {config.get('model_type')} models",),
        )

    def _serving(self, entry: Entry, spec: ServingSpec) -> Estimate:
        config, max_length, notes = self._served(spec)
        replica = placed_replicas(
            spec,
            entry.demand.name,
            self.placement,
            self.cluster,
            config=config,
            max_length=max_length,
        )
        return Estimate((replica.precision,), replica=replica, notes=notes)

    def _served(self, spec: ServingSpec) -> tuple[Mapping[str, Any] | None, int, tuple[str, ...]]:
        """Look the served version up; a model that is yet to be trained is no mistake here."""
        if self.registry is None:
            return None, 1, ()
        try:
            version = self.registry.version(spec.model, spec.version)
        except NotFoundError as problem:
            return None, 1, (f"memory: known once there is such a version: {problem.message}",)
        named = ModelSpec(base=f"version:{version.model}@{version.digest}")
        config = known_config(named, base_dir=Path(), registry=self.registry)
        return config, version.manifest.signature.max_length or 1, ()

    def _config(self, entry: Entry, spec: FineTuneSpec) -> Mapping[str, Any] | None:
        return known_config(spec.model, base_dir=entry.base_dir, registry=self.registry)

    def _facts(self, entry: Entry, spec: FineTuneSpec) -> DataFacts | UnknownData:
        return read_facts(
            spec.data,
            layout=TASKS[spec.task].layout,
            cache_dir=self.settings.cache_dir,
            base_dir=entry.base_dir,
        )

    def _num_workers(self, entry: Entry) -> int:
        return self._placed(entry) if entry.sweep is None else 1

    def _at_once(self, entry: Entry) -> int:
        return self._placed(entry) if entry.sweep is not None else 1

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


def _duration(
    spec: FineTuneSpec,
    plan: RunPlan,
    config: Mapping[str, Any],
    facts: DataFacts | UnknownData,
    num_workers: int,
) -> Duration | UnknownDuration:
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


def _known(facts: DataFacts | UnknownData) -> DataFacts | None:
    return facts if isinstance(facts, DataFacts) else None


def _one_after_the_other(
    times: Sequence[Duration | UnknownDuration],
) -> tuple[float, float] | None:
    known = [time for time in times if isinstance(time, Duration)]
    if len(known) < len(times):
        return None
    return sum(time.low_s for time in known), sum(time.high_s for time in known)


def _together(
    times: Sequence[Duration | UnknownDuration], *, at_once: int
) -> Duration | UnknownDuration:
    """Sum the trials of a sweep over its concurrent places; no trial lasts less than itself."""
    work = _one_after_the_other(times)
    if work is None:
        return next(time for time in times if isinstance(time, UnknownDuration))
    known = [time for time in times if isinstance(time, Duration)]
    return Duration(
        max(work[0] / at_once, *(time.low_s for time in known), 0.0),
        max(work[1] / at_once, *(time.high_s for time in known), 0.0),
        known[0].reason,
    )


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
