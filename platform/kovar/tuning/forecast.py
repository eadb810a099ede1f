"""What the trials of one kind of hardware take: time, money, memory and disk, as ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.data.facts import DataFacts, UnknownData, read_facts
from kovar.training.disk import DiskEstimate, estimate_disk
from kovar.training.duration import Duration, UnknownDuration
from kovar.training.fit import NUM_LABELS, MemoryFit, lora_shape
from kovar.training.method import Lora
from kovar.training.plan import RunPlan, placed_run
from kovar.training.run_duration import run_duration
from kovar.training.tasks import TASKS

if TYPE_CHECKING:
    from kovar.resources import Cluster, Placement
    from kovar.training import FineTuneSpec
    from kovar.tuning.exclusion import Configurations
    from kovar.tuning.groups import TrialGroup


@dataclass(frozen=True)
class Forecast:
    """What a group of trials takes.

    Args:
        runs: the plans of its trials, or of examples of them.
        num_at_once: trials that run at the same time.
        fit: memory of the trial that needs most, per worker; None when not known.
        disk: of the trial that needs most; None when the model is not known.
        work_s: seconds of all trials one after the other, lowest and highest; None if not known.
        duration: of the whole group, as many at once as fit; None when the model is not known.
    """

    runs: tuple[RunPlan, ...]
    num_at_once: int
    fit: MemoryFit | None
    disk: DiskEstimate | None
    work_s: tuple[float, float] | None
    duration: Duration | UnknownDuration | None

    @property
    def disk_bytes(self) -> int | None:
        """Most disk that is used at any time: of trials that run, of the best, and of the data.

        A trial that ends keeps its weights as long as it may be the best.
        """
        if self.disk is None:
            return None
        weights = self.disk.version // 2
        running = self.num_at_once * (self.disk.checkpoints + weights)
        return running + self.disk.version + (self.disk.tokenized or 0)

    def cost(self, price_per_hour: float | None) -> tuple[float, float] | None:
        """Return the lowest and highest price of all trials, by the price of one per hour."""
        if self.work_s is None or price_per_hour is None:
            return None
        low, high = self.work_s
        return price_per_hour * low / 3600, price_per_hour * high / 3600


def forecast(
    group: TrialGroup,
    placement: Placement,
    cluster: Cluster,
    configurations: Configurations,
    *,
    num_at_once: int,
    cache_dir: Path,
) -> Forecast:
    """Predict what a group takes where a placement puts it.

    Args:
        group: the trials.
        placement: of the group, under its name, and perhaps of other work.
        cluster: the node types.
        configurations: of the base models.
        num_at_once: trials that run at the same time.
        cache_dir: where the facts of data sets are, once they were read.
    """
    specs = [trial.spec for trial in group.trials]
    runs = tuple(placed_run(spec, group.name, placement, cluster) for spec in specs)
    configs = [configurations.of(spec.model) for spec in specs]
    known = [
        (spec, run, config)
        for spec, run, config in zip(specs, runs, configs, strict=True)
        if config is not None
    ]
    if len(known) < len(specs):
        return Forecast(runs, num_at_once, None, None, None, None)
    facts = _Facts(cache_dir, configurations.base_dir)
    known.sort(key=lambda one: -one[0].training.max_tokens)
    fits = [configurations.fits.of(*one) for one in known]
    disks = [_disk(spec, config, facts.of(spec)) for spec, _, config in known]
    times = [
        run_duration(spec, run, config, facts.of(spec), group.num_workers)
        for spec, run, config in known
    ]
    work_s = _work(times, group.num_trials)
    return Forecast(
        runs,
        num_at_once,
        max((fit for fit in fits if fit), key=lambda fit: fit.memory.total, default=None),
        max((disk for disk in disks if disk), key=lambda disk: disk.total, default=None),
        work_s,
        _together(times, work_s, num_at_once),
    )


@dataclass(frozen=True)
class _Facts:
    """Rows and tokens of data sets, each read once."""

    cache_dir: Path
    base_dir: Path
    known: dict[str, DataFacts | UnknownData] = field(default_factory=dict)

    def of(self, spec: FineTuneSpec) -> DataFacts | UnknownData:
        key = f"{spec.task}/{spec.data.model_dump_json()}"
        if key not in self.known:
            self.known[key] = read_facts(
                spec.data,
                layout=TASKS[spec.task].layout,
                cache_dir=self.cache_dir,
                base_dir=self.base_dir,
            )
        return self.known[key]


def _disk(
    spec: FineTuneSpec, config: Mapping[str, Any], facts: DataFacts | UnknownData
) -> DiskEstimate | None:
    return estimate_disk(
        config,
        spec.training,
        num_labels=NUM_LABELS,
        data=facts if isinstance(facts, DataFacts) else None,
        lora=lora_shape(spec.method),
        merges=isinstance(spec.method, Lora) and spec.method.merge,
        predicted_share=TASKS[spec.task].predicted_share,
    )


def _work(
    times: Sequence[Duration | UnknownDuration], num_trials: int
) -> tuple[float, float] | None:
    """Sum the trials; examples stand for as many as there will be."""
    known = [time for time in times if isinstance(time, Duration)]
    if len(known) < len(times) or not known:
        return None
    if len(known) == num_trials:
        return sum(time.low_s for time in known), sum(time.high_s for time in known)
    low, high = min(time.low_s for time in known), max(time.high_s for time in known)
    return num_trials * low, num_trials * high


def _together(
    times: Sequence[Duration | UnknownDuration], work_s: tuple[float, float] | None, at_once: int
) -> Duration | UnknownDuration | None:
    """Spread the work over the places; it never takes less than its longest trial."""
    known = [time for time in times if isinstance(time, Duration)]
    if work_s is None:
        return next((time for time in times if isinstance(time, UnknownDuration)), None)
    return Duration(
        max(work_s[0] / at_once, *(time.low_s for time in known)),
        max(work_s[1] / at_once, *(time.high_s for time in known)),
        known[0].reason,
    )
