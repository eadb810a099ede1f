"""How many nodes there may be, and how long idle ones stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kovar.resources.declaration import PRICE_LABEL
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.node import NodeDeclaration

LONG_IDLE_MINUTES: Final = 30
RAY_DEFAULT_MAX_WORKERS: Final = 2


def check_limits(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report limits that contradict each other, are left out, or cost money while idle."""
    whole = cluster.number(("max_workers",))
    if whole is None and not cluster.has(("max_workers",)):
        yield cluster.error(
            ("max_workers",),
            "missing-max-workers",
            f"the cluster has no max_workers: Ray's default is {RAY_DEFAULT_MAX_WORKERS}",
            fix="add max_workers: the most worker nodes of all types together",
        )
    total = 0.0
    for kind in cluster.node_types:
        total += cluster.number(kind.at("min_workers")) or 0
        yield from _of_type(cluster, kind, whole)
    if whole is not None and total > whole:
        yield cluster.error(
            ("max_workers",),
            "min-over-cluster",
            f"the types' min_workers add up to {total:g}, more than max_workers {whole:g}",
            fix=f"raise max_workers to {total:g}, or lower min_workers",
        )
    yield from _idle(cluster)
    if cluster.number(("upscaling_speed",)) == 0:
        yield cluster.warning(
            ("upscaling_speed",),
            "upscaling-speed",
            "at 0 the cluster grows by the least step only",
            fix="use 1.0: as many new nodes as are running",
        )


def _of_type(cluster: ClusterYaml, kind: NodeDeclaration, whole: float | None) -> Iterator[Finding]:
    least = cluster.number(kind.at("min_workers")) or 0
    most = cluster.number(kind.at("max_workers"))
    may_be_head = kind.is_head or cluster.head is None
    if most is None and not may_be_head and not cluster.has(kind.at("max_workers")):
        yield cluster.warning(
            kind.at("max_workers"),
            "missing-max-workers",
            f"{kind.name} has no max_workers: all {whole or RAY_DEFAULT_MAX_WORKERS:g} workers "
            "of the cluster may be of this type",
            fix="add max_workers: the most nodes of this type that you would pay for",
        )
    limit = most if most is not None else 0 if kind.is_head else whole
    if limit is not None and 0 <= limit < least:
        yield cluster.error(
            kind.at("min_workers"),
            "min-over-max",
            f"min_workers {least:g} is larger than max_workers {limit:g}",
            fix=f"set min_workers to at most {limit:g}, or raise max_workers to {least:g}",
        )
    if kind.is_head and most:
        yield cluster.warning(
            kind.at("max_workers"),
            "head-as-worker",
            "max_workers of the head's type lets further machines of it start as workers",
            fix="set it to 0 or remove it; declare a type of its own for workers",
        )
    elif most is not None and whole is not None and most > whole:
        yield cluster.warning(
            kind.at("max_workers"),
            "max-over-cluster",
            f"max_workers {most:g} is more than the {whole:g} of the whole cluster",
            fix=f"lower it to {whole:g}, or raise the cluster's max_workers",
        )


def _idle(cluster: ClusterYaml) -> Iterator[Finding]:
    priciest = max(cluster.workers, key=_price, default=None)
    minutes = cluster.number(("idle_timeout_minutes",))
    if minutes is not None:
        yield from _idle_of(cluster, ("idle_timeout_minutes",), minutes, priciest)
    for kind in cluster.workers:
        seconds = cluster.number(kind.at("idle_timeout_s"))
        if seconds is not None:
            yield from _idle_of(cluster, kind.at("idle_timeout_s"), seconds / 60, kind)


def _idle_of(
    cluster: ClusterYaml,
    path: tuple[str | int, ...],
    minutes: float,
    kind: NodeDeclaration | None,
) -> Iterator[Finding]:
    if minutes < 1 and not cluster.is_simulated:
        yield cluster.warning(
            path,
            "idle-timeout",
            "a node stops in the moment that it is idle, also between two steps of one job",
            fix="use 5 minutes",
        )
    elif minutes > LONG_IDLE_MINUTES and kind is not None and _has_accelerator(kind):
        cost = f", {_price(kind) * minutes / 60:,.0f} US dollars" if _price(kind) else ""
        yield cluster.warning(
            path,
            "idle-timeout",
            f"an idle {kind.name} is billed for {minutes:g} minutes{cost}",
            fix="use 5 minutes: a node comes back when work needs it",
        )


def _has_accelerator(kind: NodeDeclaration) -> bool:
    return any(kind.amount(name) for name in ("GPU", "TPU", "neuron_cores", "HPU"))


def _price(kind: NodeDeclaration) -> float:
    try:
        return float(kind.labels.get(PRICE_LABEL, ""))
    except ValueError:
        return 0.0
