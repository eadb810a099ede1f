"""The picture of a simulated cluster: node types, what waits, what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from kovar.resources import NodeType
    from kovar.simulation import ClusterStatus, SimulatedCluster


def view(status: ClusterStatus, simulated: SimulatedCluster, events: Sequence[str]) -> Group:
    """Draw one moment."""
    from rich.console import Group
    from rich.text import Text

    title = Text(f"SIMULATION of {simulated.cluster.origin}", style="bold yellow")
    title.append(f" · {simulated.address}", style="default")
    if simulated.dashboard_url is not None:
        title.append(f" · {simulated.dashboard_url}", style="default")
    told = (Text(event, style="dim") for event in events)
    return Group(title, _types(status, simulated), _pending(status), *told, Text("Ctrl-C ends it"))


def _types(status: ClusterStatus, simulated: SimulatedCluster) -> Table:
    from rich.table import Table

    table = Table("node type", "accelerator", "up", "busy", "starting", "most", "idle")
    for kind in simulated.cluster.node_types:
        up = status.of_type(kind.name)
        idle = sorted((node.idle_s for node in up if node.state == "idle"), reverse=True)
        table.add_row(
            kind.name,
            kind.accelerator or "",
            str(len(up)),
            str(sum(node.state == "busy" for node in up)),
            str(status.num_launching(kind.name)),
            _most(kind),
            "" if kind.is_head else _idle(idle, simulated.idle_timeout_s),
        )
    return table


def _most(kind: NodeType) -> str:
    if kind.num_hosts == 1:
        return str(kind.max_count)
    return f"{kind.max_count * kind.num_hosts} ({kind.max_count} × {kind.num_hosts} hosts)"


def _idle(idle_s: Sequence[float], timeout_s: float) -> str:
    return ", ".join(f"{seconds:.0f} of {timeout_s:.0f} s" for seconds in idle_s)


def _pending(status: ClusterStatus) -> Table:
    from rich.table import Table
    from rich.text import Text

    from kovar.simulation.changes import described

    table = Table("what waits", "why")
    for pending in status.pending:
        table.add_row(Text(described(pending)), Text(pending.reason))
    if not status.pending:
        table.add_row("nothing", "")
    return table
