"""Nodes that exist only as Ray processes on this machine.

Ray's monitor process loads this class; nothing else imports it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from kovar.simulation.autoscaling import without_slice_labels

OBJECT_STORE_BYTES: Final = 100 << 20
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Host:
    """One node to start: a machine of its own, or a host of a TPU slice."""

    id: str
    slice: str
    environment: Mapping[str, str]


class SimulatedNodeProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's fake provider, with labels, names for people, and TPU slices that live as one."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        head = self._nodes[self._head_node_id]["tags"]
        head[TAG_RAY_USER_NODE_TYPE] = provider_config["head_node_type"]
        head[TAG_RAY_NODE_KIND] = NODE_KIND_HEAD
        self._folder = Path(provider_config["folder"])
        self._counts: dict[str, int] = {}
        self._starting = threading.Lock()

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        """Start nodes; of a TPU slice whole slices, so that at least `count` hosts come up."""
        hosts = node_config["hosts"]
        for _ in range(-(-count // hosts)):
            started = self._declare(node_config, tags, hosts)
            own = node_config["detected_labels"] | without_slice_labels(labels)
            try:
                for host in started:
                    self._start(host, resources, own)
            except Exception:
                self._end_slice(started[0].slice)
                raise

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """List the nodes; one that died takes the rest of its slice with it."""
        for id_ in self._dead():
            _logger.info("%s is dead", id_)
            self._end_slice(id_)
        nodes: list[str] = super().non_terminated_nodes(tag_filters)
        return nodes

    def is_running(self, node_id: str) -> bool:
        """Whether the node's processes have been started."""
        with self.lock:
            return "node" in self._nodes.get(node_id, {}) or node_id == self._head_node_id

    def terminate_node(self, node_id: str) -> None:
        """End a node; a host of a slice takes the slice with it, as in a cloud."""
        self._end_slice(node_id)

    def _declare(self, config: dict[str, Any], tags: dict[str, str], hosts: int) -> list[_Host]:
        """Make the nodes known before they are up: a slow start must not cause a second one."""
        kind = tags[TAG_RAY_USER_NODE_TYPE]
        with self.lock:
            self._counts[kind] = number = self._counts.get(kind, 0) + 1
            name = f"{kind}-{number}"
            declared = []
            for index in range(hosts):
                environment = dict(config["environment"])
                if environment:
                    environment |= {"TPU_NAME": name, "TPU_WORKER_ID": str(index)}
                environment |= {"RAY_NODE_TYPE_NAME": kind}
                host = _Host(f"{name}-host-{index}" if hosts > 1 else name, name, environment)
                own = {
                    TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                    TAG_RAY_NODE_NAME: host.id,
                    TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
                }
                self._nodes[host.id] = {"tags": {**tags, **own}, "slice": name}
                declared.append(host)
        return declared

    def _start(self, host: _Host, resources: dict[str, float], labels: dict[str, str]) -> None:
        amounts = dict(resources)
        for name in [name for name in amounts if name.endswith("-head") and name[:4] == "TPU-"]:
            del amounts[name]  # Ray itself gives it to the first host of a slice
        params = RayParams(
            node_ip_address="127.0.0.1",
            min_worker_port=0,
            max_worker_port=0,
            dashboard_agent_listen_port=0,
            num_cpus=int(amounts.pop("CPU")),
            num_gpus=int(amounts.pop("GPU", 0)),
            memory=amounts.pop("memory", None),
            object_store_memory=OBJECT_STORE_BYTES,
            resources=amounts,
            labels=labels,
            redis_address=self._gcs_address,
            gcs_address=self._gcs_address,
            include_log_monitor=False,  # the head's one reads the logs of all nodes
        )
        own = {**host.environment, "RAY_CLOUD_INSTANCE_ID": host.id}
        with self._starting, _environment(own):
            # The nodes end with this process: whoever ends the monitor ends them all.
            node = Node(params, head=False, shutdown_at_exit=False, spawn_reaper=True)
        with self.lock:
            known = self._nodes.get(host.id)
            if known is not None:
                known["node"] = node
                # In one step: whoever sees the file finds the whole number in it.
                new = self._folder / f"{host.id}.new"
                new.write_text(str(_raylet(node)), encoding="ascii")
                new.replace(self._pid_file(host.id))
                return
        node.kill_all_processes(check_alive=False, allow_graceful=False)

    def _dead(self) -> list[str]:
        with self.lock:
            return [
                id_
                for id_, known in self._nodes.items()
                if "node" in known and not known["node"].remaining_processes_alive()
            ]

    def _end_slice(self, node_id: str) -> None:
        with self.lock:
            name = self._nodes[node_id]["slice"] if node_id in self._nodes else node_id
            ending = [id_ for id_, known in self._nodes.items() if known.get("slice") == name]
            nodes = [self._nodes.pop(id_) for id_ in ending]
        for id_, known in zip(ending, nodes, strict=True):
            self._pid_file(id_).unlink(missing_ok=True)
            if "node" in known:
                known["node"].kill_all_processes(check_alive=False, allow_graceful=True)

    def _pid_file(self, node_id: str) -> Path:
        return self._folder / f"{node_id}.pid"


def _raylet(node: Node) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


@contextlib.contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process: Ray reads those of the starting one, not of the node."""
    tpu = [name for name in os.environ if name.startswith("TPU_")]
    before = {name: os.environ.get(name) for name in (*own, *tpu)}
    for name in tpu:
        del os.environ[name]
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
