"""Which adapters are in memory, decided without threads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.serving.adapters.shelf import FIRST_PAUSE_S, LONGEST_PAUSE_S, Refused, Shelf


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shelf(clock):
    return Shelf(2, clock=clock)


def bring(shelf, *keys):
    """Load keys one after the other; returns what went."""
    gone = []
    for key in keys:
        assert shelf.want(key) == "load"
        gone += shelf.put(key, f"thing {key}")
    return gone


def test_what_was_used_longest_ago_goes_first(shelf):
    bring(shelf, "a", "b")
    shelf.give_back(shelf.take("a"))
    assert bring(shelf, "c") == ["thing b"]
    assert shelf.loaded == ("a", "c")


def test_what_is_in_use_stays_while_something_else_can_go(shelf):
    bring(shelf, "a", "b")
    assert shelf.take("a") == "thing a"
    shelf.give_back(shelf.take("b"))
    assert bring(shelf, "c") == ["thing b"]


def test_where_all_are_in_use_the_oldest_takes_no_new_users_and_counts_until_its_last_has_left(
    shelf,
):
    bring(shelf, "a", "b")
    first, again, other = shelf.take("a"), shelf.take("a"), shelf.take("b")
    assert bring(shelf, "c") == ["thing a"]
    assert shelf.take("a") is None
    shelf.give_back(first)
    assert not shelf.is_settled
    shelf.give_back(again)
    shelf.give_back(other)
    assert shelf.is_settled


def test_a_key_is_loaded_once_for_all_that_want_it(shelf):
    assert [shelf.want("a"), shelf.want("a")] == ["load", "wait"]
    assert shelf.is_loading("a")
    shelf.put("a", "thing")
    assert not shelf.is_loading("a")


def test_no_more_keys_are_loaded_at_a_time_than_there_is_room_for(shelf):
    shelf.want("a")
    shelf.want("b")
    assert shelf.want("c") == Refused(1.0)


def test_a_key_that_failed_is_tried_again_after_a_pause_that_doubles(shelf, clock):
    pauses = []
    for _ in range(9):
        assert shelf.want("a") == "load"
        shelf.fail("a", "it is damaged")
        refused = shelf.want("a")
        pauses.append(refused.wait_s)
        clock.now += refused.wait_s
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert refused.failure.reason == "it is damaged"


def test_a_failure_costs_no_other_key_its_place_and_is_forgotten_after_a_success(shelf, clock):
    bring(shelf, "a", "b")
    shelf.want("c")
    shelf.fail("c", "it is damaged")
    assert shelf.loaded == ("a", "b")
    assert shelf.want("c", at_once=True) == "load"
    shelf.put("c", "thing c")
    assert shelf.failure("c") is None


def test_what_is_dropped_is_loaded_again_when_it_is_wanted(shelf):
    bring(shelf, "a")
    assert shelf.drop(["a", "b"]) == ["thing a"]
    assert shelf.take("a") is None
    assert shelf.want("a") == "load"


@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans())))
def test_no_more_is_in_memory_than_there_is_room_for_and_what_is_idle_goes_first(room, asked):
    shelf = Shelf(room, clock=lambda: 0.0)
    held = []
    for number, (key, ends) in enumerate(asked):
        item = shelf.take(key)
        if item is None:
            shelf.want(key)
            idle = [one for one in shelf.loaded if all(f" {one}" not in used for used in held)]
            gone = shelf.put(key, f"{number} {key}")
            assert not idle or all(one not in held for one in gone)
            item = shelf.take(key)
        assert item is not None
        held.append(item)
        if ends:
            shelf.give_back(held.pop(0))
        assert len(shelf.loaded) <= room
    for item in held:
        shelf.give_back(item)
    assert shelf.is_settled
