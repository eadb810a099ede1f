"""The nodes that trials run on: their names and types, and whether they are still there."""

from __future__ import annotations

import socket
from typing import Any, Final

_ANSWER_TIMEOUT_S: Final = 1.0


def answers(node_id: str) -> bool:
    """Say whether a node is there: its raylet takes connections.

    Ray itself learns of a lost node seconds after the processes on it are gone.

    Args:
        node_id: Ray's.
    """
    import ray

    node = next((one for one in ray.nodes() if one["NodeID"] == node_id), None)
    if node is None or not node["Alive"]:
        return False
    try:
        address = node["NodeManagerAddress"], node["NodeManagerPort"]
        socket.create_connection(address, timeout=_ANSWER_TIMEOUT_S).close()
    except OSError:
        return False
    return True


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
