"""Threads that compute give way to the one that talks to clients."""

from __future__ import annotations

import os
import sys
from typing import Final

STEPS: Final = 4
"""Of niceness: at equal demand such a thread gets about 40 % of what the other gets.

Source: `sched_prio_to_weight` of the Linux kernel. Ray starts its workers at 15 of 19.
"""


def give_way() -> None:
    """Lower the priority of the calling thread, and of those that it starts from now on.

    Where cores are few, the threads of a model otherwise hold up the event loop for longer than a
    batch takes: requests wait to be read while batches stay small. Elsewhere than on Linux, where
    only whole processes have a priority, nothing happens.
    """
    if sys.platform != "linux":
        return
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, min(19, niceness + STEPS))
