"""Names and types of the nodes that trials run on."""

from __future__ import annotations

from typing import Any


class NodeNames:
    """Looks nodes up by Ray's ids of them; each once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str | None]] = {}

    def where(self, node_id: str) -> dict[str, str | None]:
        """Return a node's name and type; no type where none is declared."""
        if node_id not in self._known:
            import ray

            for node in ray.nodes():
                labels: dict[str, Any] = node.get("Labels") or {}
                self._known[node["NodeID"]] = {
                    "node": node["NodeManagerHostname"] or node["NodeName"],
                    "node_type": labels.get("ray.io/node-group"),
                }
        return self._known.get(node_id, {"node": node_id[:8], "node_type": None})
