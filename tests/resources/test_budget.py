"""The planner's bound: hard plans end within it, and what it leaves undecided claims nothing."""

from dataclasses import replace

import pytest

from kovar.errors import PlacementError, UndecidedError
from kovar.resources import Cluster, CpuRequest, Demand, GpuRequest, NodeType, plan_placement
from kovar.resources.arrangement import arrange
from kovar.resources.budget import STEPS, Budget
from kovar.resources.covering import cover
from kovar.resources.mixes import Mixes
from kovar.resources.need import Need, Room
from kovar.resources.refusal import refusal

MIB = 1 << 20
GIB = 1 << 30


def demand(number, request, workers):
    return Demand(
        f"d{number}", "resources.worker", request, workers, workers, "resources.num_workers"
    )


def nearly_full():
    """Return twelve unlike demands that nearly fill 14 nodes: branch and bound alone takes long."""
    cpus = [  # CPUs, MiB of memory, workers
        (1.5, 14477, 81),
        (2.5, 30990, 53),
        (2.5, 30139, 44),
        (29.0, None, 4),
        (1.5, 16684, 88),
        (11.0, 6447, 10),
        (17.0, 7575, 6),
        (3.0, None, 36),
        (1.5, None, 76),
        (5.0, None, 24),
    ]
    shares = [(3.0, 30770, 40), (11.0, 1519, 10)]
    requests = [
        *((CpuRequest(cpus=c, memory=m and m * MIB), n) for c, m, n in cpus),
        *((GpuRequest(count=0.35, cpus=c, memory=m * MIB), n) for c, m, n in shares),
    ]
    kinds = (
        NodeType("small", 32, 727 * GIB, ("A100",), 8, max_count=6),
        NodeType("large", 128, 759 * GIB, ("A100",), 8, max_count=3),
        NodeType("cpu", 192, 418 * GIB, max_count=5),
    )
    demands = [demand(number, *each) for number, each in enumerate(requests)]
    return demands, Cluster(kinds)


def what_greed_misses():
    """Return demands that fit three nodes exactly, which neither greed nor sums decide."""
    sizes = [(5, 1, 5), (10, 1, 1), (4, 1, 5), (6, 1, 3)]
    demands = [
        demand(number, CpuRequest(cpus=cpus, memory=memory), workers)
        for number, (cpus, memory, workers) in enumerate(sizes)
    ]
    return demands, Cluster((NodeType("node", 25, 60, max_count=3),))


def what_sums_leave_open():
    """Return demands that fit nowhere, which only the exact search proves."""
    sizes = [(13, 15, 5), (3, 20, 5), (20, 8, 12), (8, 6, 3)]
    demands = [
        demand(number, CpuRequest(cpus=cpus, memory=memory), workers)
        for number, (cpus, memory, workers) in enumerate(sizes)
    ]
    return demands, Cluster((NodeType("node", 60, 60, max_count=6),))


def test_a_hard_plan_ends_within_the_bound():
    demands, cluster = nearly_full()
    budget = Budget()
    with pytest.raises(UndecidedError):
        arrange(demands, cluster, budget)
    assert budget.is_spent
    # What is under way when the bound is reached is finished.
    assert budget.left > -STEPS // 10


def test_an_undecided_plan_claims_nothing_and_says_what_to_do():
    with pytest.raises(UndecidedError) as caught:
        plan_placement(*nearly_full())
    message = str(caught.value)
    assert "no arrangement was found" in message
    assert "none was ruled out" in message
    assert "not fit" not in message
    assert "--no-plan" in message


@pytest.mark.parametrize("steps", [0, 100, 1_000, 10_000, 100_000])
@pytest.mark.parametrize(
    ("problem", "fits"), [(what_greed_misses, True), (what_sums_leave_open, False)]
)
def test_whatever_the_bound_a_decision_is_the_right_one(problem, fits, steps):
    try:
        found = arrange(*problem(), Budget(steps))
    except UndecidedError:
        assert steps < 100_000
    else:
        assert (found is not None) is fits


def test_what_greed_finds_needs_no_budget():
    cluster = Cluster((NodeType("node", 8, max_count=2),))
    both = [demand(0, CpuRequest(cpus=3), 2), demand(1, CpuRequest(cpus=2), 3)]
    assert arrange(both, cluster, Budget(0)) is not None


def test_a_refusal_with_a_spent_budget_names_the_field_and_tries_no_hints():
    cluster = Cluster((NodeType("node", 8, max_count=2),))
    error = refusal(demand(0, CpuRequest(cpus=8), 3), [], cluster, Budget(0))
    assert error.field == "resources.num_workers"
    assert error.context["allowed"] == "fewer than 3"
    assert error.hint == "declare more nodes for 8 CPUs"


def test_a_refusal_within_the_budget_says_how_many_fit():
    cluster = Cluster((NodeType("node", 8, max_count=2),))
    error = refusal(demand(0, CpuRequest(cpus=8), 4), [], cluster, Budget())
    assert error.context["allowed"] == "at most 2"


def test_the_best_mix_of_a_spent_budget_is_no_less_than_the_best():
    needs = [Need(1, (7,)), Need(1, (5,)), Need(1, (3,))]
    room = Room((0,), (True,) * 3, (23,), cards=0, idle=0, price=1.0, up=1, extra=0)
    worth = [70, 48, 31]
    exact, _ = Mixes(room, needs, (9, 9, 9), Budget()).best(worth, 0)
    bound, found = Mixes(room, needs, (9, 9, 9), Budget(0)).best(worth, 0)
    assert bound >= exact
    assert found is None


def test_all_full_mixes_are_not_listed_beyond_the_bound():
    needs = [Need(1, (size,)) for size in range(1, 9)]
    room = Room((0,), (True,) * 8, (400,), cards=0, idle=0, price=1.0, up=1, extra=0)
    with pytest.raises(UndecidedError):
        list(Mixes(room, needs, (400,) * 8, Budget(10_000)).full())


def test_covering_begins_only_with_something_left():
    room = Room((0,), (True,), (2,), cards=0, idle=0, price=1.0, up=1, extra=0)
    with pytest.raises(UndecidedError):
        cover([Need(1, (1,))], (2,), [room], 0, [{}], Budget(0))


def test_on_a_cluster_that_can_grow_an_undecided_demand_is_not_said_to_wait():
    demands, cluster = nearly_full()
    with pytest.raises(UndecidedError):
        plan_placement(demands, Cluster(cluster.node_types, can_grow=True))


def test_growth_stops_where_the_bound_is_reached():
    (first, *others), cluster = nearly_full()
    elastic = replace(first, num_min=1)
    placement = plan_placement([elastic, *others], cluster)
    assert 1 <= placement.num_workers("d0") < 81
    assert all(placement.num_workers(other.name) == other.num_min for other in others)


def test_what_is_ruled_out_is_refused_at_its_field():
    demands, cluster = what_sums_leave_open()
    with pytest.raises(PlacementError) as caught:
        plan_placement(demands, cluster)
    assert not isinstance(caught.value, UndecidedError)
    assert caught.value.field == "resources.num_workers"
