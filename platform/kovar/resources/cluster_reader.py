"""Reading a declared cluster, whichever way it is written."""

from __future__ import annotations

from pathlib import Path

from kovar.config import load_document
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_file import read_cluster_file


def read_cluster(path: str | Path) -> Cluster:
    """Read the node types of a Ray `cluster.yaml`, in the order of the file.

    Raises:
        SpecError: the file, or a field of it, with its line.
    """
    return read_cluster_file(load_document(path))
