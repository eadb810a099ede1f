"""Placing the workers, trials and replicas of several files together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.batch import EvaluateSpec, PredictSpec
from kovar.errors import PlacementError
from kovar.planning.entry import Entry, read_entries
from kovar.planning.estimate import Estimate, Estimator, memory_parts
from kovar.resources import (
    Cluster,
    Cost,
    Placement,
    cost_of,
    local_cluster,
    plan_in_turn,
    plan_placement,
    read_cluster,
)
from kovar.serving import ServingSpec
from kovar.settings import Settings, load_settings
from kovar.training import FineTuneSpec
from kovar.training.duration import Duration
from kovar.tuning import Sweep
from kovar.tuning.exclusion import Configurations
from kovar.tuning.groups import TrialGroup, trial_groups

if TYPE_CHECKING:
    from kovar.registry import Registry


@dataclass(frozen=True)
class PlannedEntry:
    """One entry where it goes.

    Args:
        entry: what is asked for.
        num_alone: how many of its workers would run if it had the cluster to itself.
        cost: of the nodes that hold it.
        cost_at_least: of the fewest replicas that run; None for all but serving.
        estimate: memory, disk and time.
    """

    entry: Entry
    num_alone: int
    cost: Cost
    cost_at_least: Cost | None
    estimate: Estimate


@dataclass(frozen=True)
class Plan:
    """Where everything goes, and what it takes."""

    cluster: Cluster
    placement: Placement
    entries: tuple[PlannedEntry, ...]
    cost: Cost
    """Of all nodes in use and those that are always up."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "cluster": {
                "origin": self.cluster.origin,
                "idle_timeout_s": self.cluster.idle_timeout_s,
                "can_grow": self.cluster.can_grow,
            },
            "specs": [self._row(planned) for planned in self.entries],
            "placement": self.placement.to_json(),
            "price_per_hour": self.cost.per_hour,
        }

    def _row(self, planned: PlannedEntry) -> dict[str, Any]:
        entry, estimate = planned.entry, planned.estimate
        name = entry.demand.name
        duration = estimate.duration
        return {
            "file": str(entry.document.path),
            "kind": entry.kind,
            "name": name,
            "placed": dict(self.placement.assignments[name]),
            "num_workers": self.placement.num_workers(name),
            "num_alone": planned.num_alone,
            "precisions": {one.precision: one.reason for one in estimate.precisions},
            "price_per_hour": planned.cost.per_hour,
            "memory": _memory(estimate),
            "disk": None if estimate.disk is None else asdict(estimate.disk),
            "duration_s": [duration.low_s, duration.high_s]
            if isinstance(duration, Duration)
            else None,
            "work_s": estimate.work_s,
            "sweep": _sweep(planned),
            "notes": list(estimate.notes),
        }


def _sweep(planned: PlannedEntry) -> dict[str, Any] | None:
    group, found = planned.entry.work, planned.estimate.trials
    if not isinstance(group, TrialGroup) or found is None:
        return None
    return {
        "num_trials": group.num_trials,
        "num_at_once": found.num_at_once,
        "num_workers_per_trial": group.num_workers,
        "num_excluded": len(group.excluded),
        "disk_bytes": found.disk_bytes,
        "price_per_trial_hour": planned.estimate.price_per_hour,
        "cost_of_trials": found.cost(planned.estimate.price_per_hour),
    }


def _memory(estimate: Estimate) -> dict[str, Any] | None:
    holder = estimate.fit or estimate.replica
    if holder is None or holder.memory is None:
        return None
    return {
        "total": holder.memory.total,
        "room": holder.room.size_bytes if holder.room else None,
        "room_of": holder.room.of if holder.room else None,
        "fits": holder.fits,
        "parts": memory_parts(holder.memory),
        "largest_tokens": estimate.fit.largest_tokens if estimate.fit else None,
        "methods": estimate.methods,
    }


def plan_specs(
    paths: Sequence[Path],
    *,
    cluster: Path | Cluster | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Place the workers, trials and replicas of all files together; start nothing.

    Args:
        paths: fine-tuning, sweep or Ray Serve files.
        cluster: a declared cluster, or the file that declares one; this machine when absent.
        settings: where caches and the registry are.

    Raises:
        SpecError: a file is wrong, or a chip has too little memory.
        PlacementError: they do not fit; names the field and the nearest change.
    """
    settings = settings or load_settings()
    where = cluster if isinstance(cluster, Cluster) else _read(cluster)
    entries = read_entries(paths, lambda sweep: _groups(sweep, where, settings))
    placement = _place(entries, where)
    is_needed = any(map(_names_a_version, entries))
    with _registry(settings, is_needed=is_needed) as registry:
        estimator = Estimator(placement, where, settings, registry)
        planned = tuple(_planned(entry, estimator) for entry in entries)
    return Plan(where, placement, planned, cost_of(placement, where))


def _read(path: Path | None) -> Cluster:
    return local_cluster() if path is None else read_cluster(path)


def _groups(sweep: Sweep, cluster: Cluster, settings: Settings) -> tuple[TrialGroup, ...]:
    is_needed = any(_is_version(trial.spec) for trial in sweep.examples)
    with _registry(settings, is_needed=is_needed) as registry:
        return trial_groups(sweep, cluster, Configurations(sweep.base_dir, registry))


@contextmanager
def _registry(settings: Settings, *, is_needed: bool) -> Iterator[Registry | None]:
    """Open the registry only where a registered version is named."""
    if not is_needed:
        yield None
        return
    from kovar.registry import Registry

    with Registry.open(settings) as registry:
        yield registry


def _names_a_version(entry: Entry) -> bool:
    match entry.work:
        case ServingSpec():
            return True
        case EvaluateSpec() | PredictSpec():
            return False
        case FineTuneSpec() as spec:
            return _is_version(spec)
        case TrialGroup() as group:
            return any(_is_version(trial.spec) for trial in group.trials)


def _is_version(spec: FineTuneSpec) -> bool:
    return spec.model.source.startswith("version:")


def _place(entries: Sequence[Entry], cluster: Cluster) -> Placement:
    """Place all together; an error points into the first file that no longer fits."""
    works = [list(work) for _, work in groupby(entries, key=_work_of)]
    demands = [[entry.demand for entry in work] for work in works]
    try:
        return plan_in_turn(demands, cluster)
    except PlacementError:
        for number, work in enumerate(works, start=1):
            with work[0].pointing():
                plan_in_turn(demands[:number], cluster)
        raise


def _work_of(entry: Entry) -> int:
    """Tell works apart: the trials of one sweep are one, since they may take turns."""
    return id(entry if entry.sweep is None else entry.sweep)


def _planned(entry: Entry, estimator: Estimator) -> PlannedEntry:
    placement, cluster, demand = estimator.placement, estimator.cluster, entry.demand
    with entry.pointing():
        estimate = estimator.estimate(entry)
    at_least = None
    if isinstance(entry.work, ServingSpec) and demand.num_min < demand.num_max:
        fewest = replace(demand, num_max=demand.num_min)
        at_least = cost_of(plan_placement([fewest], cluster), cluster, demand.name)
    return PlannedEntry(
        entry,
        num_alone=plan_placement([demand], cluster).num_workers(demand.name),
        cost=cost_of(placement, cluster, demand.name),
        cost_at_least=at_least,
        estimate=estimate,
    )
