"""How a thread's priority is lowered."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kovar.inference.priority import STEPS, give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def of_a_thread_within() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(niceness()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_and_those_that_it_starts_give_way_and_no_other():
    before = niceness()
    lowered = min(19, before + STEPS)
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(niceness).result() == lowered
        assert pool.submit(of_a_thread_within).result() == lowered
    assert niceness() == before


def test_the_lowest_priority_stays():
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        for _ in range(10):
            pool.submit(give_way).result()
        assert pool.submit(niceness).result() == 19
