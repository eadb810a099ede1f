"""The planner against brute force: every worker on every node, in every order."""

import itertools
import math

from hypothesis import HealthCheck, given, settings
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
from kovar.resources.label import selected

CARD = {"L4": 24, "A100": 40}


def seldom(*values, usually):
    """Draw `usually` three times out of four, so that most cases are possible."""
    return st.sampled_from([usually] * 3 * len(values) + list(values))


constraints = {
    "disk": seldom(3, usually=None),
    "labels": seldom({"zone": "a"}, {"zone": "!a"}, usually={}),
    "custom_resources": seldom({"FPGA": 1.0}, {"FPGA": 0.5}, usually={}),
    "spot": seldom(False, usually=True),
}
gpu_types = st.sampled_from([None, "L4", "A100", ["L4", "A100"], ["A100", "L4"]])


def requests(**more):
    cpu = st.builds(
        CpuRequest,
        cpus=st.sampled_from([1.0, 1.5, 2.0, 3.0]),
        memory=st.sampled_from([None, 1, 2]),
        **more,
    )
    gpu = st.builds(
        GpuRequest,
        type=gpu_types,
        count=st.sampled_from([0.3, 0.5, 0.7, 1.0, 2.0]),
        cpus=st.sampled_from([1.0, 2.0]),
        **more,
    )
    by_memory = st.builds(
        GpuRequest,
        type=gpu_types,
        gpu_memory=st.sampled_from([8, 13, 25, 41]),
        cpus=st.just(0.5),
        **more,
    )
    tpu = st.builds(
        TpuRequest,
        type=st.sampled_from(["v5e", ["v6e", "v5e"]]),
        topology=seldom("2x8", usually="2x4"),
        **more,
    )
    return st.one_of(cpu, cpu, gpu, gpu, by_memory, tpu)


@st.composite
def demand_lists(draw, strict=True, **more):
    demands = []
    for index, request in enumerate(draw(st.lists(requests(**more), min_size=1, max_size=3))):
        step = request.num_hosts if request.kind == "tpu" else 1
        least = step * draw(st.integers(1, 3 if step == 1 else 2))
        most = least + step * draw(st.integers(0, 1))
        placement = draw(seldom("spread", "strict_pack", "strict_spread", usually="pack"))
        placement = placement if strict else "pack"
        demands.append(Demand(f"d{index}", "worker", request, least, most, placement=placement))
    return demands


@st.composite
def clusters(draw):
    limit = draw(seldom(1, 2, 3, usually=None))
    types = []
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["cpu", "gpu", "gpu", "tpu"]))
        up = draw(st.integers(0, 1)) if limit is None else 0
        name = draw(st.sampled_from(["L4", "A100"]))
        topology = draw(seldom("2x8", usually="2x4"))
        extra = {
            "cpu": {},
            "gpu": {
                "gpu_types": (name,),
                "num_gpus": 2,
                "accelerator_memory_bytes": CARD[name],
            },
            "tpu": {
                "tpu_type": draw(st.sampled_from(["v5e", "v6e"])),
                "tpu_topology": topology,
                "num_tpu_chips": {"2x4": 8, "2x8": 4}[topology],
            },
        }[kind]
        zone = draw(seldom(None, "b", usually="a"))
        types.append(
            NodeType(
                f"{kind}-{index}",
                draw(st.integers(2, 5)),
                memory_bytes=draw(seldom(None, 2, usually=4)),
                min_count=up,
                max_count=up + draw(st.sampled_from([2, 1, 1, 0])),
                disk_bytes=draw(seldom(None, 2, usually=6)),
                custom_resources=draw(seldom({}, usually={"FPGA": 1.0})),
                labels={} if zone is None else {"zone": zone},
                spot=draw(seldom(True, usually=False)),
                price_per_hour=draw(st.sampled_from([None, 1.0, 2.0])),
                **extra,
            )
        )
    return Cluster(tuple(types), max_workers=limit)


class Node:
    """One node with what is left of it."""

    def __init__(self, kind: NodeType, *, is_up: bool) -> None:
        self.kind, self.is_up = kind, is_up
        self.holders: list[int] = []
        hosts = kind.num_hosts
        self.left = {
            "cpus": kind.cpus * hosts,
            "memory": (kind.memory_bytes or 0) * hosts,
            "disk": (kind.disk_bytes or 0) * hosts,
            "FPGA": kind.custom_resources.get("FPGA", 0) * hosts,
        }
        self.cards = [10_000] * kind.num_gpus
        self.has_slice = kind.tpu_type is not None

    def ways_to_take(self, demand, request, size):
        """Yield once for each way to hold `size` more workers, holding them meanwhile."""
        kind = self.kind
        apart = demand.placement == "strict_spread" and request.kind != "tpu"
        if apart and id(demand) in self.holders:
            return
        if (kind.spot and not request.spot) or not selected(request.labels, kind.labels):
            return
        asked = {
            "cpus": request.cpus,
            "memory": request.memory or 0,
            "disk": request.disk or 0,
            "FPGA": request.custom_resources.get("FPGA", 0),
        }
        if any(amount * size > self.left[name] for name, amount in asked.items()):
            return
        for name, amount in asked.items():
            self.left[name] -= amount * size
        self.holders.append(id(demand))
        yield from self._accelerator(request)
        self.holders.pop()
        for name, amount in asked.items():
            self.left[name] += amount * size

    def _accelerator(self, request):
        kind = self.kind
        if request.kind == "cpu":
            if kind.num_hosts == 1:
                yield
        elif request.kind == "tpu":
            if self.has_slice and (kind.tpu_type, kind.tpu_topology) == (
                request.type[0],
                request.topology,
            ):
                self.has_slice = False
                yield
                self.has_slice = True
        elif kind.num_gpus and request.type[0] in kind.gpu_types:
            yield from self._cards(units_on(request, kind))

    def _cards(self, units):
        before = list(self.cards)
        if units >= 10_000:
            free = [i for i, left in enumerate(self.cards) if left == 10_000]
            if units <= 10_000 * len(free) and units % 10_000 == 0:
                for i in free[: units // 10_000]:
                    self.cards[i] = 0
                yield
                self.cards = before
            return
        for i, left in enumerate(before):
            if left >= units:
                self.cards = list(before)
                self.cards[i] -= units
                yield
        self.cards = before


def units_on(request, kind):
    if request.gpu_memory is None:
        return round(request.count * 10_000)
    units = math.ceil(request.gpu_memory * 10_000 / kind.accelerator_memory_bytes)
    return units if units <= 10_000 else 10_001


def can_hold(gangs, nodes, limit):
    """Try every node for every worker, a slice's worth of hosts at a time."""
    if not gangs:
        added = sum(1 for node in nodes if node.holders and not node.is_up)
        return limit is None or added + sum(node.is_up for node in nodes) <= limit
    (demand, request, size, home), *rest = gangs
    for node in nodes:
        if home is not None and home and home[0] is not node:
            continue
        for _ in node.ways_to_take(demand, request, size):
            if home is not None:
                home.append(node)
            held = can_hold(rest, nodes, limit)
            if home is not None:
                home.pop()
            if held:
                return True
    return False


def gangs_of(demand, request, count):
    size = request.num_hosts if request.kind == "tpu" else 1
    home = [] if demand.placement == "strict_pack" else None
    return [(demand, request, size, home) for _ in range(count // size)]


def combinations(demands):
    """Every choice of types, in the order of preference."""
    return itertools.product(
        *([one] if one.kind == "cpu" else typed(one) for one in (d.request for d in demands))
    )


def typed(request):
    names = request.type or ("L4", "A100")
    return [request.model_copy(update={"type": (name,)}) for name in names]


def nodes_of(types, counts=None):
    return [
        Node(kind, is_up=index < kind.min_count)
        for kind in types
        for index in range(kind.max_count if counts is None else counts.get(kind.name, 0))
    ]


def holds(demands, chosen, cluster):
    if any(
        demand.placement == "strict_pack" and request.kind == "tpu" and request.num_hosts > 1
        for demand, request in zip(demands, chosen, strict=True)
    ):
        return False
    gangs = [
        gang
        for demand, request in zip(demands, chosen, strict=True)
        for gang in gangs_of(demand, request, demand.num_min)
    ]
    return can_hold(gangs, nodes_of(cluster.node_types), cluster.max_workers)


thorough = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@thorough
@given(demand_lists(strict=False), clusters())
def test_a_mix_of_sizes_is_placed_exactly_when_brute_force_does(demands, cluster):
    assert_brute_force_agrees(demands, cluster)


@thorough
@given(demand_lists(**constraints), clusters())
def test_constraints_and_strict_placement_are_met_exactly_when_brute_force_does(demands, cluster):
    assert_brute_force_agrees(demands, cluster)


def assert_brute_force_agrees(demands, cluster):
    possible = [chosen for chosen in combinations(demands) if holds(demands, chosen, cluster)]
    try:
        placement = plan_placement(demands, cluster)
    except PlacementError:
        assert not possible
        return
    assert possible
    assert_first_in_order_of_preference(placement, demands, possible)
    assert_placement_is_real(placement, demands, cluster)


def assert_first_in_order_of_preference(placement, demands, possible):
    """Where no list is left open, the first combination of brute force is the plan's."""
    if all(demand.request.kind == "cpu" or demand.request.type for demand in demands):
        for demand, expected in zip(demands, possible[0], strict=True):
            chosen = placement.requests[demand.name]
            assert chosen.kind == "cpu" or chosen.type == expected.type


def assert_placement_is_real(placement, demands, cluster):
    for kind in cluster.node_types:
        gangs = [
            gang
            for demand in demands
            for gang in gangs_of(
                demand,
                placement.requests[demand.name],
                placement.assignments[demand.name].get(kind.name, 0),
            )
        ]
        assert can_hold(gangs, nodes_of([kind], placement.num_nodes), None)
        assert placement.num_nodes.get(kind.name, 0) <= kind.max_count
    for demand in demands:
        where = placement.assignments[demand.name]
        assert demand.num_min <= placement.num_workers(demand.name) <= demand.num_max
        assert demand.placement != "strict_pack" or len(where) == 1
        groups = [group for group in placement.nodes if demand.name in group.workers]
        in_groups = sum(group.workers[demand.name] * group.number for group in groups)
        assert in_groups == placement.num_workers(demand.name)
    limit = cluster.max_workers
    assert limit is None or sum(placement.num_added.values()) <= limit
