"""A pool of Ray Data actors that answer blocks of rows; Ray is started if this process has none."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kovar.batch.worker import raise_problem
from kovar.errors import RunError
from kovar.resources import actor_options
from kovar.training.cluster import start_ray

if TYPE_CHECKING:
    import pyarrow as pa

    from kovar.batch.plan import WorkerPlan


def answered_blocks(
    blocks: Sequence[pa.Table],
    worker: Callable[..., Any],
    arguments: dict[str, Any],
    *,
    plan: WorkerPlan,
    timeout_s: float,
) -> Iterator[pa.Table]:
    """Give each block to the next free worker; yield what it returns, in any order.

    A worker that dies is replaced, and its block is given to another one.

    Args:
        blocks: the work; a block is never divided.
        worker: class of the workers, called with a block.
        arguments: of its constructor.
        plan: the workers' hardware, and how many of them there are.
        timeout_s: seconds that the first workers may wait for nodes.

    Raises:
        KovarError: as a worker returned it.
        RunError: the workers waited too long, or failed in another way.
    """
    start_ray()
    import ray.data
    from ray.exceptions import GetTimeoutError, RayError

    num_max = min(plan.num_max, len(blocks))
    options = actor_options(plan.request, field="resources.worker")
    with _settled(timeout_s):
        dataset = ray.data.from_arrow(list(blocks)).map_batches(
            worker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=min(plan.num_min, num_max), max_size=num_max
            ),
            fn_constructor_kwargs=arguments,
            **options,
        )
        try:
            for table in dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                raise_problem(table)
                yield table
        except GetTimeoutError:
            raise RunError(
                f"no node took the workers for {timeout_s:.0f} s",
                hint="`ray status` shows what the cluster has; plan the job first",
            ) from None
        except (RayError, ray.data.exceptions.SystemException) as failure:
            cause = str(failure).strip().splitlines()[-1]
            raise RunError(f"the workers failed: {cause}") from failure


@contextmanager
def _settled(timeout_s: float) -> Iterator[None]:
    """Keep Ray Data's bars, advice and milestones off the terminal, and bound its waiting."""
    import ray.data

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    detection = context.issue_detectors_config
    before = context.enable_progress_bars, context.wait_for_min_actors_s, detection.detectors
    level = logger.level
    context.enable_progress_bars, context.wait_for_min_actors_s = False, math.ceil(timeout_s)
    detection.detectors = []
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.wait_for_min_actors_s, detection.detectors = before
        logger.setLevel(level)
