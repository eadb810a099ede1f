"""A client of a simulated cluster, in a process of its own: a token is read once per process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kovar.resources import Demand, GpuRequest, actor_options
from kovar.resources.pending import WaitLimits
from kovar.resources.watchdog import Watchdog

TIMEOUT_S = 60


class Client:
    """Runs functions of this file by name, one after the other."""

    def __init__(self, process: subprocess.Popen[str], pool: ThreadPoolExecutor) -> None:
        self._process, self._pool = process, pool

    @classmethod
    @contextmanager
    def started(cls, environment: Mapping[str, str]) -> Iterator[Client]:
        """Start the process with the cluster's environment; end it afterwards."""
        with (
            subprocess.Popen(
                [sys.executable, __file__],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as process,
            ThreadPoolExecutor(1) as pool,
        ):
            try:
                yield cls(process, pool)
            finally:
                process.kill()

    def start(self, name: str, *arguments: Any) -> Future[Any]:
        """Begin a function."""
        return self._pool.submit(self._call, name, arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """Run a function and return its result."""
        return self.start(name, *arguments).result(timeout=TIMEOUT_S)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise EOFError(f"the client ended in {name}")
        return json.loads(answer)


def _where() -> tuple[str, list[int]]:
    import ray

    return os.environ["RAY_CLOUD_INSTANCE_ID"], ray.get_gpu_ids()


def run(options: dict[str, Any], number: int = 1) -> Any:
    """Run actors at the same time; return the node and the GPUs of each."""
    import ray

    @ray.remote
    class Worker:
        def where(self) -> tuple[str, list[int]]:
            return _where()

    workers = [Worker.options(**options).remote() for _ in range(number)]
    places = ray.get([worker.where.remote() for worker in workers])
    for worker in workers:
        ray.kill(worker)
    return places


def run_request(fields: dict[str, Any], number: int) -> Any:
    """Run actors for one of Kovar's requests."""
    return run(actor_options(GpuRequest(**fields)), number)


def gang(bundles: list[dict[str, float]], seconds: float) -> bool:
    """Reserve bundles on different nodes, all or none; say whether it was done in time."""
    import ray
    from ray.util.placement_group import placement_group

    group = placement_group(bundles, strategy="STRICT_SPREAD")
    ready: bool = group.wait(seconds)
    ray.util.remove_placement_group(group)
    return ready


def watched(fields: dict[str, Any], number: int, infeasible_s: float) -> Any:
    """Ask for workers under the watchdog; return whether they got a place, and why not."""
    from ray.util.placement_group import placement_group, remove_placement_group

    request = GpuRequest(**fields)
    demand = Demand("training", "resources.worker", request, number, number)
    bundle = {"CPU": 1, "GPU": request.count, f"accelerator_type:{request.type[0]}": 0.001}
    limits = WaitLimits(infeasible_s, TIMEOUT_S)
    with Watchdog([demand], limits=limits, tell=lambda *_: None) as watchdog:
        group = placement_group([bundle] * number)
        try:
            placed = group.wait(TIMEOUT_S)
        except Exception:  # the watchdog removed it
            placed = False
    remove_placement_group(group)
    return placed, watchdog.given_up and watchdog.given_up.message


def tpu_slice() -> Any:
    """Reserve a slice; return the slice and the host of each of its workers."""
    import ray
    from ray.util.placement_group import remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    from ray.util.tpu import SlicePlacementGroup

    @ray.remote(num_cpus=1, resources={"TPU": 4})
    def where() -> tuple[str, str]:
        return os.environ["TPU_NAME"], os.environ["TPU_WORKER_ID"]

    reserved = SlicePlacementGroup(topology="2x2x2", accelerator_version="v4")
    group = reserved.placement_group
    ray.get(group.ready())
    places = ray.get(
        [
            where.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=index
                )
            ).remote()
            for index in range(reserved.num_hosts)
        ]
    )
    for each in (group, *reserved.head_placement_groups):
        remove_placement_group(each)
    return places


def fine_tune(spec: str, home: str) -> Any:
    """Run a fine-tuning spec on Ray Train; return the result, and the events of its log."""
    from kovar.events import read_events
    from kovar.resources import Cluster, NodeType
    from kovar.settings import load_settings
    from tiny_run import run_spec

    gpu = NodeType("gpu-l4", 4, gpu_types=("L4",), num_gpus=1, max_count=2)
    settings = load_settings({**os.environ, "KOVAR_HOME": home})
    result = run_spec(Path(spec), settings, in_process=False, cluster=Cluster((gpu,)))
    return {"metrics": result.metrics, "events": list(read_events(result.folder.events))}


def drain(resource: str, seconds: float) -> int:
    """Announce that the nodes with a resource go away, as a cloud does; return their number."""
    import time

    import ray
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + seconds) * 1000)
    found = [n["NodeID"] for n in ray.nodes() if n["Alive"] and resource in n["Resources"]]
    gcs = ray._private.worker.global_worker.gcs_client
    return sum(gcs.drain_node(node, reason, "spot", deadline_ms)[0] for node in found)


def main() -> None:
    """Answer each line of standard input."""
    import logging

    import ray

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints must not mix with answers
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answers.write(json.dumps(globals()[name](*arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
