"""Which of many things are in memory, and which one goes: decisions alone, without threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

ItemT = TypeVar("ItemT")

FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
"""A key that failed is tried again after a pause that doubles with each failure in a row."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a key could not be loaded.

    Attributes:
        reason: one sentence for its callers.
        until: moment from which on it is tried again.
        times: how often in a row it failed.
        is_wrong: it answered otherwise than it was evaluated.
    """

    reason: str
    until: float
    times: int
    is_wrong: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A key that is not loaded now.

    Attributes:
        wait_s: seconds after which asking again may help.
        failure: of the last try; None where too many others wait.
    """

    wait_s: float
    failure: Failure | None = None


Step = Literal["load", "wait"]
"""What must happen before a key is there: somebody loads it, or does so already."""


class Shelf(Generic[ItemT]):
    """Things in memory by key, at most `max_loaded`, and one more while it comes or goes.

    What was used longest ago goes first, and what is in use only where all are; it then takes no
    new users, and counts until its last one has left.

    Args:
        max_loaded: things in memory.
        clock: seconds that only move forward.
    """

    def __init__(self, max_loaded: int, *, clock: Callable[[], float]) -> None:
        self.max_loaded = max_loaded
        self._clock = clock
        # In the order of their last use, the oldest first.
        self._items: dict[str, ItemT] = {}
        self._loading: dict[str, None] = {}
        self._failures: dict[str, Failure] = {}
        self._users: Counter[int] = Counter()
        self._leaving: set[int] = set()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys of what is in memory, the one used longest ago first."""
        return tuple(self._items)

    @property
    def is_settled(self) -> bool:
        """Whether all that went has lost its last user."""
        return not self._leaving

    def is_loading(self, key: str) -> bool:
        """Whether a key is being loaded, or waits for that."""
        return key in self._loading

    def failure(self, key: str) -> Failure | None:
        """Return why a key could not be loaded the last time."""
        return self._failures.get(key)

    def take(self, key: str) -> ItemT | None:
        """Use a thing that is in memory; call `give_back` afterwards."""
        item = self._items.pop(key, None)
        if item is not None:
            self._items[key] = item
            self._users[id(item)] += 1
        return item

    def give_back(self, item: ItemT) -> None:
        """Stop using a thing."""
        self._users[id(item)] -= 1
        if self._users[id(item)] <= 0:
            del self._users[id(item)]
            self._leaving.discard(id(item))

    def want(self, key: str, *, at_once: bool = False) -> Step | Refused:
        """Decide what happens for a key that is not in memory.

        Args:
            key: what is wanted.
            at_once: try it even if it failed a moment ago.
        """
        if key in self._loading:
            return "wait"
        failure, now = self._failures.get(key), self._clock()
        if failure is not None and now < failure.until and not at_once:
            return Refused(failure.until - now, failure)
        if len(self._loading) >= self.max_loaded:
            # They cannot be in memory together: a longer line would only load in vain.
            return Refused(1.0)
        self._loading[key] = None
        return "load"

    def put(self, key: str, item: ItemT) -> list[ItemT]:
        """Note a thing that was loaded.

        Returns:
            What is no longer in memory, or goes as soon as its users are done.
        """
        self._loading.pop(key, None)
        self._failures.pop(key, None)
        self._items[key] = item
        gone = []
        while len(self._items) > self.max_loaded:
            others = [one for one in self._items if one != key]
            gone.append(self._remove(next(filter(self._is_idle, others), others[0])))
        return gone

    def fail(self, key: str, reason: str, *, is_wrong: bool = False) -> None:
        """Note that a key could not be loaded."""
        self._loading.pop(key, None)
        before = self._failures.get(key)
        times = before.times + 1 if before else 1
        pause = min(FIRST_PAUSE_S * 2.0 ** (times - 1), LONGEST_PAUSE_S)
        self._failures[key] = Failure(reason, self._clock() + pause, times, is_wrong)

    def drop(self, keys: Iterable[str]) -> list[ItemT]:
        """Let things go that nobody needs; returns them."""
        return [self._remove(key) for key in keys if key in self._items]

    def _is_idle(self, key: str) -> bool:
        return not self._users[id(self._items[key])]

    def _remove(self, key: str) -> ItemT:
        item = self._items.pop(key)
        if self._users[id(item)]:
            self._leaving.add(id(item))
        else:
            del self._users[id(item)]
        return item
