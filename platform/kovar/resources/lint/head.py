"""The head keeps the cluster's state: it runs no work and is never taken away."""

from __future__ import annotations

from collections.abc import Iterator

from kovar.resources.declaration import SPOT_LABEL, is_spot
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.tpus import is_slice

_ACCELERATORS = ("GPU", "TPU", "neuron_cores", "HPU")


def check_head(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report a head that runs work, has accelerators, or is a Spot machine."""
    head = cluster.head
    if head is None:
        return
    if not cluster.is_simulated and head.amount("CPU") > 0:
        yield cluster.warning(
            head.at("resources", "CPU"),
            "head-runs-work",
            f"the head offers {head.amount('CPU'):g} CPUs, so tasks run beside the cluster's "
            "state; one that takes its memory stops the cluster",
            fix='set "CPU": 0, and declare a worker type for CPU work',
        )
    for name in _ACCELERATORS:
        if head.amount(name):
            yield cluster.warning(
                head.at("resources", name),
                "head-accelerator",
                f"the head is billed for its {name} as long as the cluster is up",
                fix=f"make the head a machine without {name}, and declare a worker type with it",
            )
    if is_slice(head.config):
        key = next(k for k in ("acceleratorType", "acceleratorConfig") if k in head.config)
        yield cluster.error(
            head.at("node_config", key),
            "head-accelerator",
            "a TPU host cannot be the head: Ray's TPU nodes come and go with work",
            fix="give the head a machineType, say n2-standard-4",
        )
    if head.spot:
        path = (
            _spot_field(cluster, head.path)
            if is_spot(head.config)
            else head.at("labels", SPOT_LABEL)
        )
        yield cluster.error(
            path,
            "head-spot",
            "the head is a Spot machine: taken away, it ends the cluster and its jobs",
            fix="make the head an on-demand machine",
        )


def _spot_field(cluster: ClusterYaml, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    groups = ("scheduling", "schedulingConfig", "InstanceMarketOptions")
    found = (
        (*path, "node_config", group, key)
        for group in groups
        for key in ("provisioningModel", "preemptible", "spot", "MarketType")
    )
    return next((field for field in found if cluster.has(field)), path)
