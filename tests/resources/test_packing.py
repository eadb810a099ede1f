"""The planner against brute force: every worker on every node, in every order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kovar.errors import PlacementError
from kovar.resources import (
    Cluster,
    CpuRequest,
    Demand,
    GpuRequest,
    NodeType,
    TpuRequest,
    plan_placement,
)

cpu = st.builds(
    CpuRequest,
    cpus=st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    memory=st.sampled_from([None, 1, 2]),
)
gpu = st.builds(
    GpuRequest,
    type=st.sampled_from([None, "L4", "A100"]),
    count=st.sampled_from([0.3, 0.5, 0.7, 1.0, 2.0]),
    cpus=st.sampled_from([1.0, 2.0]),
)
tpu = st.builds(TpuRequest, type=st.just("v5e"), topology=st.just("2x4"))
requests = st.one_of(cpu, cpu, gpu, gpu, tpu)


@st.composite
def demand_lists(draw):
    chosen = draw(st.lists(requests, min_size=1, max_size=3))
    counts = [draw(st.integers(1, 3)) for _ in chosen]
    return [
        Demand(f"d{i}", "worker", request, count, count + draw(st.integers(0, 1)))
        for i, (request, count) in enumerate(zip(chosen, counts, strict=True))
    ]


@st.composite
def clusters(draw):
    limit = draw(st.sampled_from([None, 1, 2, 3]))
    types = []
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["cpu", "gpu", "tpu"]))
        up = draw(st.integers(0, 1)) if limit is None else 0
        extra = {
            "cpu": {},
            "gpu": {"gpu_types": (draw(st.sampled_from(["L4", "A100"])),), "num_gpus": 2},
            "tpu": {"tpu_type": "v5e", "tpu_topology": "2x4", "num_tpu_chips": 8},
        }[kind]
        types.append(
            NodeType(
                f"{kind}-{index}",
                draw(st.integers(1, 4)),
                memory_bytes=draw(st.sampled_from([None, 2, 4])),
                min_count=up,
                max_count=up + draw(st.integers(0, 2)),
                **extra,
            )
        )
    return Cluster(tuple(types), max_workers=limit)


class Node:
    """One node with what is left of it."""

    def __init__(self, kind: NodeType, *, is_up: bool) -> None:
        self.kind, self.is_up, self.num_workers = kind, is_up, 0
        self.cpus, self.memory = kind.cpus, kind.memory_bytes or 0
        self.cards = [10] * kind.num_gpus
        self.has_slice = kind.tpu_type is not None

    def ways_to_take(self, request):
        """Yield once for each way to hold one more worker, holding it meanwhile."""
        if request.cpus > self.cpus or (request.memory or 0) > self.memory:
            return
        self.cpus -= request.cpus
        self.memory -= request.memory or 0
        self.num_workers += 1
        yield from self._accelerator(request)
        self.num_workers -= 1
        self.memory += request.memory or 0
        self.cpus += request.cpus

    def _accelerator(self, request):
        if request.kind == "cpu":
            yield
        elif request.kind == "tpu" and self.has_slice:
            self.has_slice = False
            yield
            self.has_slice = True
        elif request.kind == "gpu" and (not request.type or request.type[0] in self.kind.gpu_types):
            yield from self._cards(request.count)

    def _cards(self, count):
        before = list(self.cards)
        if count >= 1:
            free = [i for i, left in enumerate(self.cards) if left == 10]
            if len(free) >= count:
                for i in free[: int(count)]:
                    self.cards[i] = 0
                yield
                self.cards = before
            return
        for i, left in enumerate(before):
            if left >= round(count * 10):
                self.cards = list(before)
                self.cards[i] -= round(count * 10)
                yield
        self.cards = before


def can_hold(workers, nodes, limit):
    """Try every node for every worker."""
    if not workers:
        added = sum(1 for node in nodes if node.num_workers and not node.is_up)
        return limit is None or added + sum(node.is_up for node in nodes) <= limit
    return any(
        can_hold(workers[1:], nodes, limit) for node in nodes for _ in node.ways_to_take(workers[0])
    )


def nodes_of(types, counts=None):
    return [
        Node(kind, is_up=index < kind.min_count)
        for kind in types
        for index in range(kind.max_count if counts is None else counts.get(kind.name, 0))
    ]


@settings(max_examples=150, deadline=None)
@given(demand_lists(), clusters())
def test_the_plan_is_possible_exactly_when_brute_force_finds_one(demands, cluster):
    workers = [demand.request for demand in demands for _ in range(demand.num_min)]
    possible = can_hold(workers, nodes_of(cluster.node_types), cluster.max_workers)
    try:
        placement = plan_placement(demands, cluster)
    except PlacementError:
        assert not possible
        return
    assert possible
    assert_placement_is_real(placement, demands, cluster)


def assert_placement_is_real(placement, demands, cluster):
    for kind in cluster.node_types:
        workers = [
            demand.request
            for demand in demands
            for _ in range(placement.assignments[demand.name].get(kind.name, 0))
        ]
        assert can_hold(workers, nodes_of([kind], placement.num_nodes), None)
        assert placement.num_nodes.get(kind.name, 0) <= kind.max_count
    for demand in demands:
        assert demand.num_min <= placement.num_workers(demand.name) <= demand.num_max
    limit = cluster.max_workers
    assert limit is None or sum(placement.num_added.values()) <= limit
