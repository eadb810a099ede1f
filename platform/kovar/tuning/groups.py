"""The trials of a sweep by hardware: which of them can run, and what one of each kind reserves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from kovar.errors import PlacementError
from kovar.resources import Cluster, CpuRequest, Demand, Placement, Request, plan_placement
from kovar.tuning.exclusion import Admitted, Configurations, Excluded, examine
from kovar.tuning.points import Sweep, TrialSpec

MiB: Final = 1 << 20

RESERVABLE: Final = 0.9
"""Most of a node's memory that a trial reserves by prediction: Ray, when it starts, may find a
little less than the plan did."""


@dataclass(frozen=True)
class TrialGroup:
    """The trials of a sweep that want the same hardware.

    Args:
        demand: as many workers as may run at once.
        trials: those that can run; examples of them where they are not known beforehand.
        excluded: those that cannot, with the reason.
        num_trials: about how many trials there will be.
        alone: where one of them runs that has the cluster to itself.
    """

    demand: Demand
    trials: tuple[TrialSpec, ...]
    excluded: tuple[Excluded, ...]
    num_trials: int
    alone: Placement

    @property
    def name(self) -> str:
        """Of the demand."""
        return self.demand.name

    @property
    def num_workers(self) -> int:
        """Workers of one trial."""
        return self.demand.num_min


def hardware_of(trial: TrialSpec) -> str:
    """Return what trials on the same hardware have in common."""
    return trial.spec.resources.model_dump_json()


def trial_groups(
    sweep: Sweep, cluster: Cluster, configurations: Configurations
) -> tuple[TrialGroup, ...]:
    """Sort the trials by what each asks for, without those that cannot run there.

    A trial on CPUs that reserves no memory is given what it is predicted to need, so that no more
    run on a node than its memory holds.

    Raises:
        PlacementError: no node type can hold a trial.
        SpecError: no trial at all can run; the reason is that of the first.
    """
    by_hardware: dict[str, list[TrialSpec]] = {}
    for trial in sweep.examples:
        by_hardware.setdefault(hardware_of(trial), []).append(trial)
    with sweep.pointing():
        groups = [
            _group(sweep, number, trials, cluster, configurations)
            for number, trials in enumerate(by_hardware.values(), start=1)
        ]
        if not any(group.trials for group in groups):
            raise groups[0].excluded[0].error
    return tuple(groups)


def _group(
    sweep: Sweep,
    number: int,
    trials: Sequence[TrialSpec],
    cluster: Cluster,
    configurations: Configurations,
) -> TrialGroup:
    name = sweep.spec.name if number == 1 else f"{sweep.spec.name} (hardware {number})"
    one = Demand.of(trials[0].spec.resources, name=name)
    alone = plan_placement([one], cluster)
    # The largest first: smaller ones fit where it does.
    found = sorted(
        (
            examine(trial, name, alone, cluster, configurations)
            for trial in sorted(trials, key=lambda one: -one.spec.training.max_tokens)
        ),
        key=lambda one: one.trial.number,
    )
    admitted = [one for one in found if isinstance(one, Admitted)]
    excluded = tuple(one for one in found if isinstance(one, Excluded))
    share = len(trials) / len(sweep.examples)
    num_trials = len(admitted) if sweep.trials else math.ceil(sweep.num_trials * share)
    at_once = min(max(1, num_trials), sweep.spec.limit or num_trials)
    request = _with_memory(one.request, admitted, cluster)
    demand = replace(one, request=request, num_max=at_once * one.num_min)
    if request != one.request:
        try:
            alone = plan_placement([replace(demand, num_max=one.num_min)], cluster)
        except PlacementError:
            demand = replace(demand, request=one.request)
    return TrialGroup(demand, tuple(one.trial for one in admitted), excluded, num_trials, alone)


def _with_memory(request: Request, admitted: Sequence[Admitted], cluster: Cluster) -> Request:
    """Reserve the memory that the largest trial is predicted to need, on hosts that declare it."""
    declared = all(kind.memory_bytes for kind in cluster.node_types if kind.cpus)
    if not isinstance(request, CpuRequest) or request.memory is not None or not declared:
        return request
    sizes = [
        min(-(-one.fit.memory.total // MiB), int(one.fit.room.size_bytes * RESERVABLE) // MiB)
        for one in admitted
        if one.fit is not None and one.fit.room is not None
    ]
    if len(sizes) < len(admitted) or not sizes:
        return request
    return request.model_copy(update={"memory": max(sizes) * MiB})
