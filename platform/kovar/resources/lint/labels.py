"""Labels of node types: Kovar's, Ray's and your own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kovar.config import Document
from kovar.errors import UserError, did_you_mean
from kovar.resources.cluster_file import ACCELERATOR_PREFIX
from kovar.resources.declaration import PREFIX, SPOT_LABEL, is_spot, read_labels
from kovar.resources.label import check_selector
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.node import ClusterSource, NodeDeclaration

RAY_PREFIX: Final = "ray.io/"
_DECLARABLE: Final = (
    "ray.io/accelerator-type", "ray.io/market-type",
    "ray.io/availability-region", "ray.io/availability-zone",
)  # fmt: skip
"""Labels of Ray that all nodes of a type share, so that the autoscaler can be told of them."""


def check_labels(cluster: ClusterSource) -> Iterator[Finding]:
    """Report labels that Ray or Kovar would refuse, ignore or misunderstand."""
    for kind in cluster.node_types:
        for key, value in kind.labels.items():
            if key.startswith(PREFIX):
                yield from _kovar_label(cluster, kind, key, value)
            else:
                yield from _syntax(cluster, kind, key, value)
            if key.startswith(RAY_PREFIX):
                yield from _ray_label(cluster, kind, key, value)
        if not kind.is_head:
            yield from _spot(cluster, kind)


def _kovar_label(
    cluster: ClusterSource, kind: NodeDeclaration, key: str, value: str
) -> Iterator[Finding]:
    try:
        read_labels(Document.of({"labels": {key: value}}), ("labels",))
    except UserError as error:
        yield cluster.error(
            kind.at("labels", key),
            "kovar-label",
            f"{error.message}, not {value!r}" if error.context["got"] else error.message,
            fix=error.hint or str(error.context["allowed"] or "see docs/clusters.md"),
        )


def _syntax(
    cluster: ClusterSource, kind: NodeDeclaration, key: str, value: str
) -> Iterator[Finding]:
    # A label's value is a selector without operators.
    try:
        check_selector(key, value or "empty")
        problem = "a value has no operators" if value[:1] == "!" or "(" in value else None
    except ValueError as error:
        problem = str(error).partition(":")[0]
    if problem:
        yield cluster.error(
            kind.at("labels", key),
            "label-syntax",
            f"Ray refuses this label: {problem}",
            fix="use at most 63 letters, digits, '-', '_' and '.', with a letter or digit at "
            "both ends",
        )


def _ray_label(
    cluster: ClusterSource, kind: NodeDeclaration, key: str, value: str
) -> Iterator[Finding]:
    path = kind.at("labels", key)
    if key not in _DECLARABLE:
        yield cluster.error(
            path,
            "ray-label",
            f"{key} is Ray's own: each node finds its value by itself, and yours would replace it",
            fix=did_you_mean(key, list(_DECLARABLE)) or "remove it, or use a prefix of your own",
        )
    types = [
        name.removeprefix(ACCELERATOR_PREFIX)
        for name in kind.resources
        if name.startswith(ACCELERATOR_PREFIX)
    ]
    if key == "ray.io/accelerator-type" and types and value not in types:
        yield cluster.error(
            path,
            "ray-label",
            f"the label says {value}, resources say {types[0]}",
            fix=f'set it to "{types[0]}"',
        )


def _spot(cluster: ClusterSource, kind: NodeDeclaration) -> Iterator[Finding]:
    told = kind.labels.get(SPOT_LABEL)
    real = is_spot(kind.config)
    if told not in ("true", "false", None) or cluster.cloud is None:
        return
    if (told == "true") != real:
        says = "Ray's scheduler sees no label" if told is None else f"the label says {told}"
        yield cluster.error(
            kind.at("labels", SPOT_LABEL),
            "spot-label",
            f"{says}, node_config asks for "
            + ("a Spot machine" if real else "an on-demand machine"),
            fix=f'set {SPOT_LABEL}: "{str(real).lower()}", or change node_config',
        )
