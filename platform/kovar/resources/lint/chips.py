"""How accelerators and other resources are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kovar.errors import did_you_mean
from kovar.resources.accelerators import ACCELERATORS
from kovar.resources.cluster_file import ACCELERATOR_PREFIX
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.node import ClusterSource, NodeDeclaration, meant_resource
from kovar.resources.lint.tpus import slice_of

_COUNTED: Final = {"gpu": "GPU", "tpu": "TPU", "neuron": "neuron_cores", "hpu": "HPU"}


def check_chips(cluster: ClusterSource) -> Iterator[Finding]:
    """Report misspelled resources and accelerators whose type or number is left out."""
    for kind in cluster.node_types:
        for key in cluster.mapping(kind.at("resources")):
            yield from _resource_name(cluster, kind, str(key))
        types = [key for key in kind.resources if key.startswith(ACCELERATOR_PREFIX)]
        for key in types if slice_of(kind.config) is None else ():
            yield from _accelerator_type(cluster, kind, key)
        if kind.amount("GPU") and not types:
            yield cluster.error(
                kind.at("resources", "GPU"),
                "gpu-without-type",
                "no accelerator_type is declared: work that asks for a type of GPU waits for ever",
                fix='add the type to resources, for example "accelerator_type:L4": 1',
            )


def _resource_name(cluster: ClusterSource, kind: NodeDeclaration, key: str) -> Iterator[Finding]:
    meant = meant_resource(key)
    if meant != key:
        yield cluster.error(
            kind.at("resources", key),
            "resource-name",
            f"Ray would take {key!r} for a resource of your own",
            fix=f'did you mean "{meant}"?',
        )


def _accelerator_type(cluster: ClusterSource, kind: NodeDeclaration, key: str) -> Iterator[Finding]:
    name = key.removeprefix(ACCELERATOR_PREFIX)
    known = ACCELERATORS.get(name)
    if known is None and (hint := nearest_accelerator(name)):
        yield cluster.error(
            kind.at("resources", key),
            "accelerator-type",
            f"Ray knows no accelerator {name!r}, and compares names exactly",
            fix=hint,
        )
    elif known is not None and not kind.amount(_COUNTED[known.kind]) and known.kind != "tpu":
        yield cluster.error(
            kind.at("resources", key),
            "type-without-count",
            f"{name} is declared and no {_COUNTED[known.kind]}: nothing can be placed on it",
            fix=f'add "{_COUNTED[known.kind]}": the number of them',
        )
    if kind.amount(key) != 1:
        yield cluster.warning(
            kind.at("resources", key),
            "accelerator-type",
            f"{key} says what the node has, not how many: Ray's nodes report 1",
            fix=f'set "{key}": 1; the number belongs to GPU or TPU',
        )


def nearest_accelerator(name: str) -> str | None:
    """Return a hint when an accelerator that Ray knows is spelled nearly like this."""
    by_folded = {known.casefold(): known for known in ACCELERATORS}
    bare = name.casefold().replace(" ", "-").replace("_", "-")
    for prefix in ("nvidia-", "tesla-", "google-"):
        bare = bare.removeprefix(prefix)
    exact = by_folded.get(bare)
    return f'did you mean "{exact}"?' if exact else did_you_mean(name, list(ACCELERATORS))
