from kovar.tuning.ledger import Entry
from kovar.tuning.spending import Allowance, Spent, price_over_stays, spending
from kovar.tuning.state import SweepState


def state_of(*lines):
    entries = [
        Entry(number, float(at), kind, fields)
        for number, (at, kind, fields) in enumerate(lines, start=1)
    ]
    return SweepState.of(entries)


def test_only_the_time_of_drivers_counts():
    state = state_of(
        (0, "opened", {}), (10, "alive", {}), (100, "opened", {}), (107, "closed", {"reason": "x"})
    )
    assert spending(state, lambda trial: None, 500.0) == Spent(17.0, None)


def test_what_runs_now_counts_up_to_now():
    proposed = {"trial": 1, "configuration": 1, "seed": 0, "point": {}}
    state = state_of((0, "opened", {}), (0, "proposed", proposed), (10, "started", {"trial": 1}))
    assert spending(state, lambda trial: 2.0, 3610.0) == Spent(3610.0, 2.0)


def test_a_limit_is_reached_and_not_before():
    assert Allowance(hours=1).exceeded(Spent(3599.0, None)) is None
    assert Allowance(hours=1).exceeded(Spent(3600.0, None)) == "the budget of 1 hours is used up"
    assert Allowance(cost=2).exceeded(Spent(9e9, None)) is None
    assert Allowance().exceeded(Spent(9e9, 9e9)) is None


def test_each_stay_is_charged_by_its_own_node_type():
    proposed = {"trial": 1, "configuration": 1, "seed": 0, "point": {}}
    lost = {"trial": 1, "reason": "its node was lost", "lost_node": True}
    state = state_of(
        (0, "opened", {}),
        (0, "proposed", proposed),
        (0, "started", {"trial": 1}),
        (0, "reported", {"trial": 1, "node": "a", "node_type": "dear"}),
        (3000, "interrupted", lost),
        (3000, "started", {"trial": 1}),
        (3000, "reported", {"trial": 1, "node": "b", "node_type": "cheap"}),
    )
    prices = {"dear": 10.0, "cheap": 2.0, None: 10.0}
    assert price_over_stays(state.trials[1], prices.get, 4000.0) == 8.0
    assert price_over_stays(state.trials[1], {"dear": 10.0}.get, 4000.0) is None
