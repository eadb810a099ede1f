"""Where the trials of a sweep would run, how many of them at once, and what they take."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.config import format_size
from kovar.resources import Cluster, Placement, local_cluster, plan_in_turn
from kovar.training.plan import RunPlan, placed_run
from kovar.tuning.exclusion import Configurations, Excluded, examine
from kovar.tuning.forecast import Forecast, forecast
from kovar.tuning.groups import TrialGroup, hardware_of, trial_groups
from kovar.tuning.points import Sweep, TrialSpec
from kovar.tuning.price import price_of_trial

if TYPE_CHECKING:
    from kovar.registry import Registry
    from kovar.settings import Settings


@dataclass(frozen=True)
class SweepPlan:
    """Where the trials go.

    Args:
        sweep: the sweep.
        cluster: the node types.
        placement: the proof; of groups that take turns it holds each by itself.
        groups: the trials by hardware.
        configurations: of the base models that are known.
    """

    sweep: Sweep
    cluster: Cluster
    placement: Placement
    groups: tuple[TrialGroup, ...]
    configurations: Configurations

    @property
    def planned(self) -> tuple[TrialGroup, ...]:
        """The groups of which a trial can run."""
        return tuple(group for group in self.groups if group.trials)

    @cached_property
    def at_once(self) -> dict[str, int]:
        """How many trials of each group run at the same time, by the group's name.

        Each has all its workers then: trials that run never wait for each other's workers.
        """
        return {group.name: at_once_of(group, self.placement) for group in self.planned}

    @property
    def num_at_once(self) -> int:
        """How many trials run at the same time."""
        fit = sum(self.at_once.values())
        return min(fit, self.sweep.spec.limit or fit)

    @cached_property
    def runs(self) -> dict[int, RunPlan]:
        """The plans of the trials that are known, by their numbers."""
        if self.sweep.is_adaptive:
            return {}
        return {
            trial.number: placed_run(trial.spec, group.name, self.placement, self.cluster)
            for group in self.planned
            for trial in group.trials
        }

    @cached_property
    def excluded(self) -> dict[int, str]:
        """Why trials that are known cannot run, by their numbers."""
        if self.sweep.is_adaptive:
            return {}
        return {one.trial.number: one.reason for group in self.groups for one in group.excluded}

    def group_of(self, trial: TrialSpec) -> TrialGroup:
        """Return the group whose hardware a trial wants."""
        return self._by_hardware[hardware_of(trial)]

    def admit(self, trial: TrialSpec) -> RunPlan | Excluded:
        """Tell where a trial runs, or why it cannot; also of one that was not known beforehand."""
        group = self.group_of(trial)
        found = examine(trial, group.name, group.alone, self.cluster, self.configurations)
        if isinstance(found, Excluded):
            return found
        if group not in self.planned:
            return replace(group.excluded[0], trial=trial)
        return placed_run(trial.spec, group.name, self.placement, self.cluster)

    def threads_of(self, trial: TrialSpec) -> int:
        """Return the threads that each worker of a trial computes with: the CPUs that it holds."""
        return max(1, int(self.group_of(trial).demand.request.cpus))

    def price_of(self, trial: TrialSpec, node_type: str | None = None) -> float | None:
        """Return the US dollars per hour for what a trial holds of its nodes.

        Args:
            trial: any trial.
            node_type: where it runs; by default the most expensive place of its group.

        Returns:
            None where the node type has no price, or is not declared.
        """
        return price_of_group(self.group_of(trial), self.placement, self.cluster, node_type)

    def forecasts(self, cache_dir: Path) -> list[Forecast]:
        """Predict what each planned group takes."""
        return [
            forecast(
                group,
                self.placement,
                self.cluster,
                self.configurations,
                num_at_once=self.at_once[group.name],
                cache_dir=cache_dir,
            )
            for group in self.planned
        ]

    @cached_property
    def _by_hardware(self) -> Mapping[str, TrialGroup]:
        return {
            hardware_of(trial): group
            for group in self.groups
            for trial in (*group.trials, *(one.trial for one in group.excluded))
        }


def plan_sweep(
    sweep: Sweep,
    cluster: Cluster | None = None,
    *,
    settings: Settings | None = None,
    registry: Registry | None = None,
) -> SweepPlan:
    """Prove that every kind of trial can be placed, and find those that cannot run there.

    Args:
        sweep: the sweep.
        cluster: the declared cluster; this machine when absent.
        settings: where the sweep will write; its disk is not looked at when absent.
        registry: needed where the base model is a registered version.

    Raises:
        PlacementError: no node type can hold a trial.
        SpecError: no trial at all can run, a price is needed and not declared, or the disk is too
            small.
    """
    cluster = local_cluster() if cluster is None else cluster
    configurations = Configurations(sweep.base_dir, registry)
    groups = trial_groups(sweep, cluster, configurations)
    with sweep.pointing():
        demands = [group.demand for group in groups if group.trials]
        placement = plan_in_turn([demands], cluster)
    plan = SweepPlan(sweep, cluster, placement, groups, configurations)
    for group in plan.planned:
        check_price(sweep, group, placement, cluster)
    if settings is not None:
        check_disk(plan, settings)
    return plan


def unplanned_sweep(sweep: Sweep, *, registry: Registry | None = None) -> SweepPlan:
    """Take the trials as they are written, without a proof that they can be placed.

    Raises:
        SpecError: a request leaves open what only a plan decides, no trial can run, or money is
            counted, for which a plan knows the prices.
    """
    cluster = Cluster((), can_grow=True)
    configurations = Configurations(sweep.base_dir, registry)
    groups = trial_groups(sweep, cluster, configurations)
    alone = [group.alone for group in groups]
    placement = replace(
        alone[0],
        requests={name: request for one in alone for name, request in one.requests.items()},
        assignments={name: {} for one in alone for name in one.requests},
        beyond={name: reason for one in alone for name, reason in one.beyond.items()},
    )
    for group in groups:
        check_price(sweep, group, placement, cluster)
    return SweepPlan(sweep, cluster, placement, groups, configurations)


def at_once_of(group: TrialGroup, placement: Placement) -> int:
    """Count the trials of a group that a placement holds, each with all its workers.

    On nodes that the plan cannot see these are as many as the sweep allows: Ray starts a trial when
    all its workers have a place, and not before.
    """
    if group.name in placement.beyond:
        return group.demand.num_max // group.num_workers
    return placement.num_workers(group.name) // group.num_workers


def price_of_group(
    group: TrialGroup, placement: Placement, cluster: Cluster, node_type: str | None = None
) -> float | None:
    """Return the US dollars per hour for what one trial of a group holds of its nodes.

    Args:
        group: the trials.
        placement: of the group, under its name.
        cluster: the node types.
        node_type: where the trial runs; by default the most expensive of its places.
    """
    kinds = {kind.name: kind for kind in cluster.node_types}
    names = placement.assignments[group.name] if node_type is None else [node_type]
    request = placement.requests[group.name]
    prices = [
        price_of_trial(request, group.num_workers, kinds[name]) if name in kinds else None
        for name in names
    ]
    known = [price for price in prices if price is not None]
    return max(known) if known and len(known) == len(prices) else None


def check_price(sweep: Sweep, group: TrialGroup, placement: Placement, cluster: Cluster) -> None:
    """Refuse a sweep that counts money where nobody knows a price.

    Raises:
        SpecError: at the line of the budget, or of the objectives.
    """
    counts = "budget.cost" if sweep.spec.budget.cost is not None else None
    if "cost" in sweep.spec.objectives:
        counts = "objectives"
    if counts is None or price_of_group(group, placement, cluster) is not None:
        return
    where = ", ".join(placement.assignments[group.name]) or "nodes that this plan cannot see"
    raise sweep.document.error_at(
        counts,
        "the price of a trial is not known",
        got=f"no kovar.dev/price-per-hour label on {where}",
        hint="label the node types with their price, or weigh wall_seconds instead",
    )


def check_disk(plan: SweepPlan, settings: Settings, *, free: int | None = None) -> None:
    """Refuse a sweep whose checkpoints and weights the disk cannot hold.

    Args:
        plan: the sweep's.
        settings: where it will write.
        free: bytes that are left there; looked up when absent.

    Raises:
        SpecError: naming the disk that is needed and that is left.
    """
    needed = sum(one.disk_bytes or 0 for one in plan.forecasts(settings.cache_dir))
    folder = next(one for one in (settings.runs_dir, *settings.runs_dir.parents) if one.exists())
    free = shutil.disk_usage(folder).free if free is None else free
    if needed > free:
        raise plan.sweep.document.error_at(
            "max_concurrent",
            f"{plan.num_at_once} trials at once write more than the disk of {folder} has left",
            got=format_size(needed),
            allowed=format_size(free),
            hint="fewer trials at once, training.keep_checkpoints: 1, or another runs_dir",
        )
