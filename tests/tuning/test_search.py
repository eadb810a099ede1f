"""Searchers: what they propose, and that a replay of the calls ends in the same state."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kovar.tuning.search import Observation, Search, explore, make_search
from tiny_sweep import sweep_spec

RATE = {"kind": "loguniform", "low": 1e-5, "high": 1e-2}
PRECISION = {"kind": "grid", "values": ["fp32", "bf16"]}
OPTIMIZER = {"kind": "choice", "values": ["adamw", "sgd"]}
MOMENTUM = {"kind": "uniform", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}}
UP = {"accuracy": "max"}


def searching(search: dict[str, Any], **fields: Any) -> Search:
    directions = fields.pop("directions", UP)
    observations = fields.pop("observations", ())
    spec = sweep_spec(search, **fields)
    return make_search(spec, directions=directions, observations=observations)


def all_of(search: Search) -> list[dict[str, Any]]:
    points = []
    while (point := search.ask(len(points) + 1)) is not None:
        points.append(point)
        search.tell(len(points), {"accuracy": quality(point)})
    return points


def quality(point: dict[str, Any]) -> float:
    """Be best at a learning rate of 1e-3."""
    return -abs(math.log10(point["lr"]) + 3) if "lr" in point else 0.0


def test_a_grid_search_goes_through_steps_choices_and_grids():
    search = {
        "a": {"kind": "uniform", "low": 0.1, "high": 0.3, "step": 0.1},
        "b": {"kind": "integer", "low": 2, "high": 6, "step": 2},
        "c": {"kind": "choice", "values": [True, 1]},
    }
    points = all_of(searching(search, searcher="grid"))
    assert len(points) == 18
    assert [point["a"] for point in points[::6]] == [0.1, 0.2, 0.3]


def test_a_dimension_whose_condition_is_not_met_is_left_out():
    search = {
        "optimizer": {"kind": "grid", "values": ["adamw", "sgd"]},
        "momentum": {"kind": "grid", "values": [0.0, 0.9], "when": {"optimizer": ["sgd"]}},
        "nesterov": {"kind": "grid", "values": [True, False], "when": {"momentum": 0.9}},
    }
    assert all_of(searching(search)) == [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": False},
    ]


def test_a_combination_beside_which_nothing_is_drawn_is_tried_once():
    search = {
        "optimizer": {"kind": "grid", "values": ["adamw", "sgd"]},
        "momentum": {"kind": "uniform", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    }
    points = all_of(searching(search, num_samples=4))
    assert [point["optimizer"] for point in points] == ["adamw", "sgd", "sgd", "sgd", "sgd"]


@pytest.mark.parametrize("searcher", ["random", "quasi_random", "tpe"])
def test_nothing_is_tried_twice_and_a_small_space_comes_to_an_end(searcher):
    search = {"a": {"kind": "integer", "low": 1, "high": 3}, "b": OPTIMIZER}
    points = all_of(searching(search, searcher=searcher, num_samples=50))
    assert len(points) == len({tuple(point.items()) for point in points}) == 6


@pytest.mark.parametrize("searcher", ["random", "quasi_random", "tpe"])
def test_a_combination_that_is_used_up_ends_without_the_others(searcher):
    small = {"kind": "choice", "values": [1, 2, 3], "when": {"precision": "fp32"}}
    search = {"precision": PRECISION, "a": small, "lr": RATE | {"when": {"precision": "bf16"}}}
    points = all_of(searching(search, searcher=searcher, num_samples=6))
    assert sorted(p["a"] for p in points if p["precision"] == "fp32") == [1, 2, 3]
    assert sum(p["precision"] == "bf16" for p in points) == 6


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_a_replay_passes_over_the_same_combinations(searcher):
    small = {"kind": "integer", "low": 1, "high": 4, "when": {"precision": "fp32"}}
    search = {"precision": PRECISION, "a": small, "lr": RATE | {"when": {"precision": "bf16"}}}
    points = all_of(searching(search, searcher=searcher, num_samples=8))
    for known in range(1, len(points)):
        again = searching(search, searcher=searcher, num_samples=8)
        for number, point in enumerate(points[:known], start=1):
            again.recall(number, point)
            again.tell(number, {"accuracy": quality(point)})
        assert again.ask(known + 1) == points[known]


@pytest.mark.parametrize("searcher", ["random", "quasi_random"])
def test_a_sample_is_shared_by_the_combinations_of_the_grid(searcher):
    search = {"lr": RATE, "precision": PRECISION}
    points = all_of(searching(search, searcher=searcher, num_samples=3))
    assert [point["lr"] for point in points[::2]] == [point["lr"] for point in points[1::2]]
    assert len({point["lr"] for point in points}) == 3


def test_quasi_random_samples_leave_no_part_of_a_range_out():
    points = all_of(searching({"lr": RATE}, searcher="quasi_random", num_samples=8))
    eighths = {math.floor((math.log10(point["lr"]) + 5) / 3 * 8) for point in points}
    assert eighths == set(range(8))


def test_tpe_comes_closer_than_its_independent_draws():
    points = all_of(searching({"lr": RATE}, searcher="tpe", num_samples=30))
    before, after = points[:10], points[20:]
    assert max(map(quality, after)) > max(map(quality, before))
    assert sum(map(quality, after)) > sum(map(quality, before))


def test_a_replay_of_the_calls_goes_on_as_the_search_itself():
    fields = {"searcher": {"kind": "tpe", "num_startup": 3}, "num_samples": 20, "seed": 5}
    search = {"lr": RATE, "optimizer": OPTIMIZER, "momentum": MOMENTUM, "precision": PRECISION}
    first, again = searching(search, **fields), searching(search, **fields)
    for number in range(1, 16):
        point = first.ask(number)
        again.recall(number, point)
        if number % 3:
            scores = {"accuracy": quality(point)} if number % 4 else None
            for one in (first, again):
                one.report(number, 10, {"accuracy": 0.1 * number})
                one.tell(number, scores, stopped=number % 5 == 0)
    assert [first.ask(n) for n in range(16, 24)] == [again.ask(n) for n in range(16, 24)]


def test_several_objectives_are_followed_together():
    directions = {"accuracy": "max", "cost": "min"}
    search = searching(
        {"lr": RATE},
        searcher={"kind": "tpe", "num_startup": 2},
        num_samples=8,
        directions=directions,
    )
    for number in range(1, 9):
        point = search.ask(number)
        search.report(number, 1, {"accuracy": 0.5})
        search.tell(number, {"accuracy": quality(point), "cost": point["lr"]})
    assert search.ask(9) is None


def test_a_score_that_is_not_finite_counts_as_none():
    search = searching({"lr": RATE}, searcher="tpe", num_samples=3)
    assert search.ask(1)
    search.tell(1, {"accuracy": math.nan})
    assert search.ask(2)


def test_what_a_grid_value_spoils_is_not_blamed_on_what_was_drawn_beside_it():
    search = {"lr": RATE, "precision": {"kind": "grid", "values": ["fp32", "fp16"]}}
    fields = {"searcher": {"kind": "tpe", "num_startup": 4}, "num_samples": 30}
    points, found = [], searching(search, **fields)
    while (point := found.ask(len(points) + 1)) is not None:
        points.append(point)
        excluded = point["precision"] == "fp16"
        found.tell(len(points), None if excluded else {"accuracy": quality(point)})
    late = [quality(point) for point in points[40:]]
    assert sum(late) / len(late) > -0.4  # within a factor of 2.5 of the best learning rate


def test_what_is_told_of_a_configuration_again_changes_nothing():
    search = searching({"lr": RATE}, searcher="tpe", num_samples=3)
    search.ask(1)
    search.tell(1, None)
    search.report(1, 5, {"accuracy": 0.5})
    search.tell(1, {"accuracy": 0.5})
    assert search.ask(2)


def test_an_earlier_sweep_stands_for_the_independent_draws():
    seen = [Observation({"lr": 10 ** (-5 + n / 5)}, {}) for n in range(15)]
    seen = [Observation(one.point, {"accuracy": quality(one.point)}) for one in seen]
    seen += [Observation({"lr": 1.0}, {"accuracy": 9.0}), Observation({}, {"accuracy": 9.0})]
    search = {"lr": RATE}
    cold = all_of(searching(search, searcher="tpe", num_samples=5))
    warm = all_of(searching(search, searcher="tpe", num_samples=5, observations=seen))
    assert sum(map(quality, warm)) > sum(map(quality, cold))


def test_a_donors_values_are_changed_within_their_ranges():
    search = {
        "training.learning_rate": RATE,
        "training.dropout": {"kind": "choice", "values": [0.0, 0.1, 0.2]},
        "training.max_tokens": {"kind": "integer", "low": 64, "high": 256},
    }
    spec = sweep_spec(search, scheduler="pbt")
    donor = {"training.learning_rate": 9e-3, "training.dropout": 0.2, "training.max_tokens": 100}
    changed = [explore(spec, donor, draw=draw) for draw in range(40)]
    assert all(1e-5 <= point["training.learning_rate"] <= 1e-2 for point in changed)
    assert {point["training.dropout"] for point in changed} == {0.0, 0.1, 0.2}
    assert {point["training.max_tokens"] for point in changed} == {100}
    assert changed == [explore(spec, donor, draw=draw) for draw in range(40)]
