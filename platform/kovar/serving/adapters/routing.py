"""Tells Ray Serve which adapters a replica holds, so that requests can be sent where one is.

Serve's routers prefer, for a request with the header `serve_multiplexed_model_id`, a replica that
has told this id, and without one a replica that holds the fewest. What Serve calls a multiplexed
model is kept by itself otherwise: its own cache lets a model go while requests use it, loads a
failing one again for each request that waits, and makes room before it knows that a load succeeds.
"""

from __future__ import annotations

import logging

from kovar.serving.adapters.pool import AdapterPool

logger = logging.getLogger(__name__)


def routing_ids(pool: AdapterPool) -> list[str]:
    """Return the ids of the adapters in memory: names, and names with versions."""
    loaded = pool.loaded
    return sorted({str(one) for one in loaded} | {one.model for one in loaded})


def tell_router(pool: AdapterPool) -> None:
    """Tell Serve's controller, which tells the routers; outside of a replica nobody is told."""
    from ray.serve._private.common import RequestRoutingInfo
    from ray.serve.context import _get_global_client, _get_internal_replica_context

    context = _get_internal_replica_context()
    if context is None:
        return
    info = RequestRoutingInfo(
        replica_id=context.replica_id, multiplexed_model_ids=routing_ids(pool)
    )
    try:
        _get_global_client().record_request_routing_info(info)
    except Exception as problem:
        # Requests are answered without it, if by a replica that loads the adapter first.
        logger.warning("Serve was not told of the adapters: %s", type(problem).__name__)
