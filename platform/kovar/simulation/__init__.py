"""A simulated Ray cluster on this machine: it proves scheduling and recovery, never speed."""

from kovar.simulation.cluster import SimulatedCluster
from kovar.simulation.status import ClusterStatus, Launch, Node, Pending

__all__ = ["ClusterStatus", "Launch", "Node", "Pending", "SimulatedCluster"]
