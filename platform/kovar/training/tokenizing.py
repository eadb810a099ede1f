"""Tokenizing on all nodes of a cluster at once, through Ray Data."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

    from kovar.data.dataset import Call, OrderedMap, Tokenized

    Work = Callable[[Call], Tokenized]

CALLS_PER_TASK: Final = 16
"""A thousand rows each: a second or so of one core."""

TASKS_PER_CPU: Final = 4
"""Tasks of one round for each CPU of the cluster; a round waits for its slowest task."""

FEWEST_CALLS: Final = 64
"""Fewer are done by the time that Ray Data has started."""

ROWS: Final = "kovar.rows"
"""The column of row numbers."""


def tokenizing_map() -> OrderedMap:
    """Return what tokenizes: the cluster if this process belongs to one of several nodes.

    The tokenizer's own threads already use all cores of one node.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return map
    return cluster_map if num_cpu_nodes(ray.nodes()) > 1 else map


def num_cpu_nodes(nodes: Sequence[Mapping[str, Any]]) -> int:
    """Count the nodes that can tokenize.

    Args:
        nodes: as `ray.nodes()` describes them.
    """
    return sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in nodes)


def cluster_map(
    work: Work, calls: Iterator[Call], *, fewest_calls: int = FEWEST_CALLS
) -> Iterator[Tokenized]:
    """Yield `work(call)` for every call, in order, done by tasks on all nodes.

    Memory holds one round of calls, however many there are.

    Args:
        work: a pure function that can be pickled.
        calls: pieces of a thousand rows.
        fewest_calls: fewer are done by this process itself.

    Raises:
        RunError: a task failed although it was repeated.
    """
    first = list(islice(calls, fewest_calls))
    if len(first) < fewest_calls:
        yield from map(work, first)
        return
    import ray

    remaining = chain(first, calls)
    num_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    shared = ray.put(work)
    while tasks := _round(remaining, num_tasks=TASKS_PER_CPU * num_cpus):
        yield from _done(tasks, shared)


def _round(calls: Iterator[Call], *, num_tasks: int) -> list[pa.Table]:
    """Return tables of one row, each the work of a task: Ray Data never divides a row."""
    tables = []
    for number in range(num_tasks):
        own = list(islice(calls, CALLS_PER_TASK))
        if not own:
            break
        tables.append(_row(number, [_write_call(call) for call in own]))
    return tables


def _row(number: int, written: list[bytes]) -> pa.Table:
    import pyarrow as pa

    cells = pa.array([written], pa.list_(pa.large_binary()))
    return pa.table({"number": [number], "cells": cells})


def _done(tasks: Sequence[pa.Table], shared: Any) -> Iterator[Tokenized]:
    """Yield the results of one round in order."""
    import ray.data
    from ray.exceptions import RayError

    def tokenize(block: pa.Table) -> pa.Table:
        # Ray gives a task one core; the tokenizer would take all of them.
        os.environ["RAYON_NUM_THREADS"] = "1"
        work: Work = ray.get(shared)
        cells = block.column("cells")[0].as_py()
        done = [_write_result(work(_read_call(cell))) for cell in cells]
        return _row(block.column("number")[0].as_py(), done)

    found: dict[int, list[bytes]] = {}
    with _quiet():
        try:
            answers = ray.data.from_arrow(list(tasks)).map_batches(
                tokenize, batch_size=1, batch_format="pyarrow", num_cpus=1
            )
            for table in answers.iter_batches(batch_size=1, batch_format="pyarrow"):
                found[table.column("number")[0].as_py()] = table.column("cells")[0].as_py()
        except (RayError, ray.data.exceptions.SystemException) as failure:
            cause = str(failure).strip().splitlines()[-1]
            raise RunError(f"tokenizing on the cluster failed: {cause}") from failure
    for number in range(len(tasks)):
        yield from map(_read_result, found.pop(number))


def _write_call(call: Call) -> bytes:
    import pyarrow as pa

    table, rows = call
    (batch,) = table.append_column(ROWS, pa.array(rows)).combine_chunks().to_batches()
    return _bytes(batch, {})


def _read_call(cell: bytes) -> Call:
    import pyarrow as pa

    table = pa.ipc.open_stream(cell).read_all()
    return table.drop_columns([ROWS]), table.column(ROWS).to_numpy()


def _write_result(done: Tokenized) -> bytes:
    return _bytes(done.stored, {"rows": done.num_rows, "truncated": done.num_truncated})


def _read_result(cell: bytes) -> Tokenized:
    import pyarrow as pa

    from kovar.data.dataset import Tokenized

    batch, counts = pa.ipc.open_stream(cell).read_next_batch_with_custom_metadata()
    return Tokenized(batch, int(counts[b"rows"]), int(counts[b"truncated"]))


def _bytes(batch: pa.RecordBatch, counts: dict[str, int]) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata={name: str(n) for name, n in counts.items()})
    found: bytes = sink.getvalue().to_pybytes()
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's bars and milestones off the terminal: the run has a bar of its own."""
    import ray.data

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)
