"""Where a cluster shows its metrics, and one reading of them."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from kovar.errors import UserError
from kovar.serving.observe.exposition import Sample, read_samples
from kovar.serving.observe.traffic import Reading

PREFIX: Final = "ray_kovar_"
TIMEOUT_S: Final = 5.0


def metrics_urls(address: str) -> list[str]:
    """Return the metrics pages of the nodes that are up.

    Args:
        address: host:port of the cluster's head.

    Raises:
        UserError: the cluster does not answer.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.exceptions import RayError

    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=TIMEOUT_S).values()
    except (RayError, RuntimeError) as problem:
        raise UserError(
            f"the Ray cluster does not answer: {problem}",
            field="RAY_ADDRESS",
            got=address,
            hint="a cluster with token authentication wants RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
        ) from None
    return [
        f"http://{node.node_manager_address}:{node.metrics_export_port}/metrics"
        for node in nodes
        if node.state == GcsNodeInfo.ALIVE and node.metrics_export_port > 0
    ]


def read_metrics(urls: Sequence[str]) -> tuple[Reading, list[str]]:
    """Read the pages at once.

    Returns:
        The reading, and the pages that did not answer.
    """
    with ThreadPoolExecutor(min(16, max(1, len(urls)))) as pool:
        pages = list(pool.map(_page, urls))
    samples = [sample for page in pages if page is not None for sample in page]
    missing = [url for url, page in zip(urls, pages, strict=True) if page is None]
    return Reading(time.monotonic(), samples), missing


def _page(url: str) -> list[Sample] | None:
    if not url.startswith(("http://", "https://")):
        raise UserError("not an http(s) address", field="--metrics", got=url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310
            return list(read_samples(response.read().decode(), prefix=PREFIX))
    except OSError:
        return None
