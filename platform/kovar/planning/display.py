"""A plan as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kovar.config import format_size
from kovar.planning.estimate import Estimate, memory_parts
from kovar.planning.plan import Plan, PlannedEntry
from kovar.resources import Cost, CpuRequest, GpuRequest, NodeType, Request, TpuRequest
from kovar.training.duration import Duration
from kovar.training.fit import MemoryFit
from kovar.tuning.groups import TrialGroup

_MOMENTS: Final = {
    "step": "most in a step",
    "evaluation": "most in an evaluation",
    "version": "most when the finished version is checked",
}


def draw(plan: Plan) -> Group:
    """Draw a plan: a block for each entry, then the nodes."""
    return Group(*(_block(plan, planned) for planned in plan.entries), _nodes(plan), _foot(plan))


def _block(plan: Plan, planned: PlannedEntry) -> Group:
    entry = planned.entry
    title = Text.assemble((entry.demand.name, "bold"), f" · {entry.kind} · {entry.document.path}")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, fact in _facts(plan, planned):
        facts.add_row(f"  {name}", Text(fact))
    return Group(title, facts, "")


def _facts(plan: Plan, planned: PlannedEntry) -> Iterator[tuple[str, str]]:
    estimate = planned.estimate
    yield "placed", _placed(plan, planned)
    yield from _contention(plan, planned)
    for number, precision in enumerate(estimate.precisions):
        yield ("" if number else "precision"), precision.reason
    if estimate.fit is not None:
        yield from _training_memory(estimate, estimate.fit)
    elif estimate.replica is not None and estimate.replica.memory is not None:
        memory = estimate.replica.memory
        room = f" of {estimate.replica.room}" if estimate.replica.room else ""
        warning = "" if estimate.replica.fits else "  (may not fit)"
        yield "memory", f"about {format_size(memory.total)} per replica{room}{warning}"
    if estimate.disk is not None:
        yield "disk", _disk(estimate)
    yield from _time_and_cost(planned)
    for note in estimate.notes:
        yield "note", note


def _placed(plan: Plan, planned: PlannedEntry) -> str:
    demand = planned.entry.demand
    request = plan.placement.requests[demand.name]
    where = ", ".join(
        f"{count} on {name}" for name, count in plan.placement.assignments[demand.name].items()
    )
    beyond = plan.placement.beyond.get(demand.name)
    number = demand.num_min if beyond else plan.placement.num_workers(demand.name)
    noun = {"sweep": "trial", "serve": "replica"}.get(planned.entry.kind, "worker")
    per_trial = ""
    if isinstance(planned.entry.work, TrialGroup):
        number //= demand.num_min
        per_trial = f"{demand.num_min} workers × " if demand.num_min > 1 else ""
    several = f"{noun}{'s' if number != 1 else ''}"
    if isinstance(planned.entry.work, TrialGroup):
        several += f" at once, of {planned.entry.work.num_trials}"
    place = where or f"nowhere that this plan can see ({beyond})"
    return f"{number} {several} × {per_trial}{_asked(request)}: {place}"


def _asked(request: Request) -> str:
    cpus = f"{request.cpus:g} CPU"
    match request:
        case GpuRequest():
            return f"{request.count:.4g} {(*request.type, 'GPU')[0]} + {cpus}"
        case TpuRequest():
            return (
                f"{request.chips_per_host} chips of a {request.type[0]} {request.topology} slice "
                f"({request.num_hosts} host{'s' if request.num_hosts > 1 else ''}) + {cpus}"
            )
        case CpuRequest():
            return cpus


def _contention(plan: Plan, planned: PlannedEntry) -> Iterator[tuple[str, str]]:
    name = planned.entry.demand.name
    here = plan.placement.num_workers(name)
    if here < planned.num_alone:
        others = [p.entry.demand.name for p in plan.entries if p is not planned]
        yield "contention", f"{planned.num_alone} alone, {here} beside {', '.join(others)}"
    if planned.cost.shared_with:
        yield "shares", f"nodes with {', '.join(planned.cost.shared_with)}"


def _training_memory(estimate: Estimate, fit: MemoryFit) -> Iterator[tuple[str, str]]:
    memory = fit.memory
    room = f" of {fit.room}" if fit.room else ""
    warning = "" if fit.fits else "  (may not fit)"
    when = _MOMENTS[memory.moment]
    yield "memory", f"about {format_size(memory.total)} per worker{room}, {when}{warning}"
    parts = memory_parts(memory).items()
    yield "", " + ".join(f"{name.replace('_', ' ')} {format_size(size)}" for name, size in parts)
    is_predicted = estimate.trials is not None and fit.room is not None and fit.room.field
    if fit.largest_tokens is not None and not is_predicted:
        name = "max_tokens" if fit.shares is None else "micro_batch_tokens"
        largest = fit.largest_tokens // (fit.shares or 1)
        yield "", f"largest training.{name} that fits: {largest:,}"
    if estimate.methods:
        sizes = (f"{name} {format_size(size)}" for name, size in estimate.methods.items())
        yield "", "by method: " + " · ".join(sizes)


def _disk(estimate: Estimate) -> str:
    disk = estimate.disk
    each = "" if estimate.trials is None else " a trial"
    most = None if estimate.trials is None else estimate.trials.disk_bytes
    in_all = "" if most is None else f"; at most {format_size(most)} in all"
    assert disk is not None  # noqa: S101 (for the type checker: the caller looked)
    tokenized = "unknown" if disk.tokenized is None else format_size(disk.tokenized)
    return (
        f"checkpoints {format_size(disk.checkpoints)}{each}, "
        f"version {format_size(disk.version)}, tokenized data {tokenized}{in_all}"
    )


def _time_and_cost(planned: PlannedEntry) -> Iterator[tuple[str, str]]:
    duration, cost = planned.estimate.duration, planned.cost
    if isinstance(duration, Duration):
        yield "duration", f"{_span(duration)} ({duration.reason})"
    elif duration is not None:
        yield "duration", f"unknown: {duration.reason}"
    if planned.entry.sweep is not None and planned.estimate.work_s is not None:
        low, high = (seconds / 3600 for seconds in planned.estimate.work_s)
        yield "trial-hours", f"{low:.2g} to {high:.2g} in all{_ended_early(planned)}"
        yield from _price_of_trials(planned.estimate)
    yield "cost", _cost(cost, planned.cost_at_least, duration)


def _ended_early(planned: PlannedEntry) -> str:
    sweep = planned.entry.sweep
    kind = "none" if sweep is None else sweep.spec.scheduler.kind
    return "" if kind in ("none", "pbt") else f", less what {kind} ends early"


def _price_of_trials(estimate: Estimate) -> Iterator[tuple[str, str]]:
    price = estimate.price_per_hour
    if estimate.trials is not None and price is not None:
        text = f"${price:.2f} per trial and hour for its share of a node"
        if (cost := estimate.trials.cost(price)) is not None:
            text += f", ${cost[0]:.2f} to ${cost[1]:.2f} for all"
        yield "trials cost", text


def _cost(cost: Cost, at_least: Cost | None, duration: object) -> str:
    if cost.per_hour is None:
        if not cost.unpriced:
            return "unknown: it depends on the nodes that come"
        return f"unknown: no kovar.dev/price-per-hour label on {', '.join(cost.unpriced)}"
    text = f"${cost.per_hour:.2f} per hour"
    if at_least is not None and at_least.per_hour not in (None, cost.per_hour):
        text = f"${at_least.per_hour:.2f} to {text}"
    if isinstance(duration, Duration):
        low, high = cost.over(duration.low_s) or 0.0, cost.over(duration.high_s) or 0.0
        text += f", ${low:.2f} to ${high:.2f} for the whole"
    return text


def _span(duration: Duration) -> str:
    return f"{_clock(duration.low_s)} to {_clock(duration.high_s)}"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _nodes(plan: Plan) -> Table:
    table = Table(
        "node type", "has", "up", "to add", "most", "CPUs used", "GPUs used", "$/h each",
        title=f"nodes of {plan.cluster.origin}", title_justify="left",
    )  # fmt: skip
    for kind in plan.cluster.node_types:
        number = plan.placement.num_nodes.get(kind.name, 0)
        if not number and not kind.min_count:
            continue
        cpus, gpus = _used(plan, kind)
        table.add_row(
            kind.name,
            f"{kind.accelerator or 'CPU'}{' spot' if kind.spot else ''}",
            str(kind.min_count),
            str(plan.placement.num_added.get(kind.name, 0)),
            str(kind.max_count),
            f"{cpus:g} of {kind.cpus * kind.num_hosts * max(number, kind.min_count):g}",
            f"{gpus:g} of {kind.num_gpus * max(number, kind.min_count)}" if kind.num_gpus else "",
            "" if kind.price_per_hour is None else f"{kind.price_per_hour:.2f}",
        )
    return table


def _used(plan: Plan, kind: NodeType) -> tuple[float, float]:
    """Sum the CPUs and GPUs that are asked for on all nodes of a type."""
    cpus = gpus = 0.0
    for name, where in plan.placement.assignments.items():
        request, count = plan.placement.requests[name], where.get(kind.name, 0)
        cpus += request.cpus * count
        gpus += request.count * count if isinstance(request, GpuRequest) else 0.0
    return cpus, gpus


def _foot(plan: Plan) -> Text:
    lines = []
    if plan.cost.per_hour is not None:
        lines.append(f"${plan.cost.per_hour:.2f} per hour for all of these nodes")
    if plan.cluster.idle_timeout_s is not None and plan.placement.num_added:
        minutes = plan.cluster.idle_timeout_s / 60
        lines.append(f"added nodes stop after {minutes:g} idle minutes")
    if plan.cluster.busy:
        lines.append(f"in use now, and not counted as taken: {plan.cluster.busy}")
    if plan.cluster.can_grow:
        lines.append("the cluster's autoscaler may add nodes that this plan cannot see")
    return Text("\n".join(lines))
