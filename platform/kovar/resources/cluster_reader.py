"""Reading a declared cluster, whichever way it is written."""

from __future__ import annotations

from pathlib import Path

from kovar.config import load_document, load_documents
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_file import read_cluster_file
from kovar.resources.kuberay import is_kuberay, read_kuberay


def read_cluster(path: str | Path) -> Cluster:
    """Read the node types of a Ray `cluster.yaml` or of a KubeRay manifest, in their order.

    A manifest may stand among other documents of its file (a ConfigMap, a Service …).

    Raises:
        SpecError: the file, or a field of it, with its line.
    """
    documents = load_documents(path)
    found = [document for document in documents if is_kuberay(document)]
    if not found:
        return read_cluster_file(documents[0] if len(documents) == 1 else load_document(path))
    if len(found) > 1:
        raise found[1].error_at(
            "kind",
            "the file declares more than one cluster",
            got=found[1].data.get("kind"),
            hint="give each its own file",
        )
    return read_kuberay(found[0])
