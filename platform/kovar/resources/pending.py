"""Work that waits for nodes: how long it may, and why it is given up.

Ray waits for ever, also for what no node will ever hold. The decision here is a pure function of
what is seen and of a clock; `kovar.resources.watchdog` sees and acts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kovar.config import format_size
from kovar.resources.cluster_file import ACCELERATOR_PREFIX
from kovar.resources.cluster_state import ClusterState


@dataclass(frozen=True)
class WaitLimits:
    """How long work may wait.

    Args:
        infeasible_s: seconds for which no node fits that is up or can be added.
        placement_s: seconds in all, for example until busy nodes are free or new ones have booted.
    """

    infeasible_s: float = 30.0
    placement_s: float = 600.0


@dataclass(frozen=True)
class Gang:
    """A placement group that waits.

    Args:
        id: Ray's id of it, in hexadecimal.
        bundles: what each of its workers needs.
        infeasible: whether some bundle fits no node that is up, even an empty one.
    """

    id: str
    bundles: tuple[Mapping[str, float], ...] = field(hash=False)
    infeasible: bool

    def __str__(self) -> str:
        same = Counter(_shown(bundle) for bundle in self.bundles)
        return " and ".join(f"{count} × {bundle}" for bundle, count in same.items())


@dataclass(frozen=True)
class Sight:
    """What is seen of waiting work at one moment.

    Args:
        status: what it waits for.
        impossible: why it would wait for ever, as far as is known now; None if it may succeed.
    """

    status: str
    impossible: str | None = None


@dataclass(frozen=True)
class Wait:
    """Work that has been seen waiting, without a break, since `since_s` of some clock."""

    since_s: float
    impossible_since_s: float | None = None


@dataclass(frozen=True)
class GiveUp:
    """The decision that waiting longer is in vain, and what its user may do."""

    reason: str
    hint: str


def judge(
    wait: Wait | None, sight: Sight | None, *, now_s: float, limits: WaitLimits
) -> Wait | GiveUp | None:
    """Decide whether work waits on.

    Args:
        wait: what this returned the time before; None at first.
        sight: what is seen now; None if nothing waits.
        now_s: time of a steady clock, in seconds.
        limits: how long it may wait.

    Returns:
        None if nothing waits, the wait that goes on, or the decision to give up, with the reason.
    """
    if sight is None:
        return None
    wait = wait or Wait(now_s)
    if sight.impossible is None:
        wait = replace(wait, impossible_since_s=None)
    elif wait.impossible_since_s is None:
        wait = replace(wait, impossible_since_s=now_s)
    start = f"no worker could start for {now_s - wait.since_s:.0f} s"
    if (
        wait.impossible_since_s is not None
        and now_s - wait.impossible_since_s >= limits.infeasible_s
    ):
        return GiveUp(f"{start}: {sight.impossible}", "kovar plan SPEC --live says what would fit")
    if now_s - wait.since_s >= limits.placement_s:
        return GiveUp(
            f"{start}: {sight.status}",
            f"submit it again later, or wait longer than {limits.placement_s:g} s: "
            "KOVAR_PLACEMENT_TIMEOUT_S",
        )
    return wait


def sight_of(
    gangs: Sequence[Gang], state: ClusterState, *, demand: str, refusal: str | None, busy: str = ""
) -> Sight:
    """Say what waiting work waits for, and whether in vain.

    The autoscaler also calls a gang infeasible while fitting nodes are merely busy and no more may
    be added; then Ray itself does not. So both must say it, and no node may be on its way.

    Args:
        gangs: the placement groups that wait; none while Ray has not asked for one yet.
        state: the cluster.
        demand: what is wanted, for people.
        refusal: why the plan finds no place on the empty cluster with all nodes that can be added;
            None if it finds one, or does not know what can be added.
        busy: what is in use now, for people.
    """
    wanted = " and ".join(map(str, gangs)) or demand
    if state.launching:
        coming = ", ".join(f"{count} × {kind}" for kind, count in sorted(state.launching.items()))
        return Sight(f"launching {coming} for {wanted}")
    if refusal is not None:
        reason = f"{wanted} fits no node that is up or can be added: {refusal}"
        return Sight(reason, impossible=reason)
    if any(
        gang.infeasible and (gang.id in state.infeasible or not state.has_autoscaler)
        for gang in gangs
    ):
        says = "and the autoscaler has none to add" if state.has_autoscaler else "and none is added"
        reason = f"{wanted} fits no node that is up, {says}{_failed(state)}"
        return Sight(reason, impossible=reason)
    if any(gang.infeasible for gang in gangs):
        return Sight(f"the autoscaler starts no node yet for {wanted}{_failed(state)}")
    holding = f" ({busy} are in use)" if busy else ""
    return Sight(f"{wanted} fits once other work ends{holding}{_failed(state)}")


def _failed(state: ClusterState) -> str:
    return f"; launches failed: {', '.join(state.failures)}" if state.failures else ""


def _shown(bundle: Mapping[str, float]) -> str:
    """Write a bundle: {CPU: 1, GPU: 4, accelerator_type:A100}."""
    parts = []
    for name, amount in sorted(bundle.items()):
        if name.startswith(ACCELERATOR_PREFIX):
            parts.append(name)  # its amount, 0.001, says nothing
        elif name.endswith("memory"):
            parts.append(f"{name}: {format_size(int(amount))}")
        else:
            parts.append(f"{name}: {amount:g}")
    return f"{{{', '.join(parts)}}}"
