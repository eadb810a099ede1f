"""Where the trials of a sweep would run, and how many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kovar.resources import Cluster, Demand, Placement, Request, local_cluster, plan_in_turn
from kovar.training.plan import RunPlan, placed_run
from kovar.tuning.points import Sweep, TrialSpec


@dataclass(frozen=True)
class TrialGroup:
    """The trials of a sweep that want the same hardware.

    Args:
        demand: as many workers as may run at once.
        trials: all of them.
    """

    demand: Demand
    trials: tuple[TrialSpec, ...]


@dataclass(frozen=True)
class SweepPlan:
    """Where the trials go.

    Args:
        placement: the proof.
        groups: the trials by hardware.
        max_concurrent: most trials at once that the sweep allows; None for no limit.
        runs: the plan of each trial, by its number.
    """

    placement: Placement
    groups: tuple[TrialGroup, ...]
    max_concurrent: int | None
    runs: dict[int, RunPlan]

    @property
    def num_at_once(self) -> int:
        """How many trials run at the same time."""
        fit = sum(self.placement.num_workers(group.demand.name) for group in self.groups)
        return min(fit, self.max_concurrent or fit)


def trial_groups(sweep: Sweep) -> tuple[TrialGroup, ...]:
    """Sort the trials by what each asks for; groups that do not fit together take turns."""
    requests: dict[str, tuple[Request, list[TrialSpec]]] = {}
    for trial in sweep.examples:
        request = trial.spec.resources.worker
        requests.setdefault(request.model_dump_json(), (request, []))[1].append(trial)
    return tuple(
        TrialGroup(
            Demand(
                name=sweep.spec.name if number == 1 else f"{sweep.spec.name} (hardware {number})",
                field="resources.worker",
                request=request,
                num_min=1,
                num_max=min(len(trials), sweep.spec.limit or len(trials)),
            ),
            tuple(trials),
        )
        for number, (request, trials) in enumerate(requests.values(), start=1)
    )


def plan_sweep(sweep: Sweep, cluster: Cluster | None = None) -> SweepPlan:
    """Prove that every trial can be placed, and resolve each one's precision.

    Args:
        sweep: the sweep.
        cluster: the declared cluster; this machine when absent.

    Raises:
        PlacementError: no node type can hold a trial.
        SpecError: a chip cannot compute in a precision that is tried.
    """
    cluster = local_cluster() if cluster is None else cluster
    groups = trial_groups(sweep)
    with sweep.pointing():
        placement = plan_in_turn([[group.demand for group in groups]], cluster)
        runs = placed_trials(groups, placement, cluster)
        return SweepPlan(placement, groups, sweep.spec.limit, runs)


def placed_trials(
    groups: Sequence[TrialGroup], placement: Placement, cluster: Cluster
) -> dict[int, RunPlan]:
    """Describe every trial where a placement, which may hold other work as well, puts it.

    Raises:
        SpecError: a chip cannot compute in a precision that is tried.
    """
    return {
        trial.number: placed_run(trial.spec, group.demand.name, placement, cluster)
        for group in groups
        for trial in group.trials
    }
