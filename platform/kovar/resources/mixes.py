"""The workers that one node can hold together, and the most worthwhile of such mixes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from kovar.resources.budget import Budget, undecided
from kovar.resources.cards import UNITS, count_cards
from kovar.resources.need import Mix, Need, Room, largest

Left = tuple[int, ...]
"""What is left on a node of each measure; the last one is ten-thousandths of cards."""


_STEPS_PER_FILL: Final = 3
"""What one step of the search for cards takes, as steps of the budget."""


class Mixes:
    """What a node of a room can hold of the needs.

    Args:
        room: the room.
        needs: all needs.
        wanted: the number of workers of each.
        budget: the work that this may take.
    """

    def __init__(self, room: Room, needs: Sequence[Need], wanted: Mix, budget: Budget) -> None:
        self.room, self.needs, self.wanted, self.budget = room, needs, wanted, budget
        self.empty: Left = (*room.amounts, room.cards * UNITS)
        # The sum over shares and whole cards bounds what fits; `count_cards` then decides.
        self.each: list[Left] = [(*need.amounts, need.units) for need in needs]
        self._is_exact = True
        self.takes = [takes and bool(n) for takes, n in zip(room.takes, wanted, strict=True)]

    def most(self, index: int, left: Left) -> int:
        """Return how many workers of one need the measures alone allow."""
        need, most = self.needs[index], self.wanted[index]
        for there, each in zip(left, self.each[index], strict=True):
            if each and there < each * most:
                most = there // each
        if need.at_most_one:
            return min(most, 1)
        if need.together:
            return most if most == self.wanted[index] else 0
        return most - most % need.step

    def counts(self, index: int, left: Left, mix: Mix) -> Sequence[int]:
        """List the possible numbers of workers of one need beside a mix, the largest first."""
        need, most = self.needs[index], self.most(index, left)
        if need.units and most:
            most = largest(most, lambda count: self._on_cards(_with(mix, index, count)))
        if need.together:
            return (most, 0) if most == self.wanted[index] else (0,)
        return range(most - most % need.step, -1, -need.step)

    def _on_cards(self, mix: Mix) -> bool:
        whole, shares = 0, dict[int, int]()
        for need, count in zip(self.needs, mix, strict=True):
            whole += need.gpus * count
            if need.share and count:
                shares[need.share] = shares.get(need.share, 0) + count
        cards = count_cards(tuple(sorted(shares.items())))
        # A search costs the same in every plan, also when its answer is known from another.
        self.budget.spend(cards.steps * _STEPS_PER_FILL)
        if whole + cards.at_least <= self.room.cards < whole + cards.enough:
            self._is_exact = False
        return whole + cards.enough <= self.room.cards

    def without(self, index: int, left: Left, count: int) -> Left:
        """Return what is left after so many workers of one need."""
        if not count:
            return left
        each = self.each[index]
        return tuple(there - count * size for there, size in zip(left, each, strict=True))

    def full(self) -> Iterator[Mix]:
        """Yield the mixes to which no worker that is wanted can be added.

        Raises:
            UndecidedError: the budget is spent before the last of them, or whether one fits on
                the cards took too long to tell.
        """
        order = [index for index, takes in enumerate(self.takes) if takes]
        measures = range(len(self.empty))
        # What the needs after each place take at most.
        later = [
            [sum(self.each[i][d] * self.wanted[i] for i in order[place + 1 :]) for d in measures]
            for place in range(len(order))
        ]

        def visit(place: int, left: Left, mix: Mix) -> Iterator[Mix]:
            self.budget.spend(len(order) * len(measures))
            self.budget.check()
            if place == len(order):
                if any(mix) and not any(self._takes_more(index, left, mix) for index in order):
                    yield mix
                return
            index = order[place]
            counts = self.counts(index, left, mix)
            if not self._is_exact:
                raise undecided()
            for count in counts[:1] if place == len(order) - 1 else counts:
                after = self.without(index, left, count)
                if count < counts[0] and self._stays_open(index, after, later[place]):
                    break
                yield from visit(place + 1, after, _with(mix, index, count))

        self._is_exact = True
        yield from visit(0, self.empty, (0,) * len(self.needs))

    def _stays_open(self, index: int, left: Left, later: Sequence[int]) -> bool:
        """Whether one worker more of a need fits, whatever the later needs take."""
        need = self.needs[index]
        more = self.wanted[index] if need.together else need.step
        # What is left of cards may lie in pieces.
        return not need.units and all(
            there - taken >= more * each
            for there, taken, each in zip(left, later, self.each[index], strict=True)
        )

    def _takes_more(self, index: int, left: Left, mix: Mix) -> bool:
        need = self.needs[index]
        more = self.wanted[index] if need.together else need.step
        if mix[index] + more > (1 if need.at_most_one else self.wanted[index]):
            return False
        if any(
            there < more * each for there, each in zip(left, self.each[index], strict=True) if each
        ):
            return False
        return not need.units or self._on_cards(_with(mix, index, mix[index] + more))

    def best(self, worth: Sequence[int], more_than: int) -> tuple[int, Mix | None]:
        """Find the mix of the largest total worth by branch and bound: exact within the budget.

        Args:
            worth: of one worker of each need, in whole numbers.
            more_than: mixes that are worth no more are not wanted.

        Returns:
            The worth and the mix, or `more_than` and None. When the budget is spent, or the cards
            that a mix needs took too long to tell, the worth that no mix exceeds, and the best of
            the mixes seen, if any is worth more than `more_than`.
        """
        order = [i for i, takes in enumerate(self.takes) if takes and worth[i] > 0]
        order.sort(key=lambda index: worth[index] / self._part(index), reverse=True)
        # For each measure, the needs from each place on, those that make the most of it first.
        thrifty = [
            [
                sorted(order[place:], key=lambda i: self.each[i][measure] / worth[i])
                for measure in range(len(self.empty))
            ]
            for place in range(len(order))
        ]
        best, found = more_than, None

        def bound(place: int, left: Left) -> float:
            """Fill up each measure by itself, with a part of a worker at last."""
            self.budget.spend((len(order) - place) * len(left))
            most = {index: self.most(index, left) for index in order[place:]}
            lowest = math.inf
            for measure, there in enumerate(left):
                total = 0.0
                for index in thrifty[place][measure]:
                    size = self.each[index][measure] * most[index]
                    if size > there:
                        # One more makes up for rounding.
                        total += worth[index] * there / self.each[index][measure] + 1
                        break
                    total += worth[index] * most[index]
                    there -= size
                lowest = min(lowest, total)
            return lowest

        def visit(place: int, value: int, left: Left, mix: Mix) -> None:
            nonlocal best, found
            if value > best:
                best, found = value, mix
            if place == len(order) or self.budget.is_spent or value + bound(place, left) <= best:
                return
            index = order[place]
            counts = self.counts(index, left, mix)
            for count in counts[:1] if place == len(order) - 1 else counts:
                visit(
                    place + 1,
                    value + worth[index] * count,
                    self.without(index, left, count),
                    _with(mix, index, count),
                )

        self._is_exact = True
        visit(0, 0, self.empty, (0,) * len(self.needs))
        if order and (self.budget.is_spent or not self._is_exact):
            best = max(best, math.ceil(bound(0, self.empty)))
        return best, found

    def _part(self, index: int) -> float:
        """Return the largest part of a node that one worker takes."""
        sizes = zip(self.each[index], self.empty, strict=True)
        return max((each / there for each, there in sizes if each), default=1e-9) or 1e-9


def _with(mix: Mix, index: int, count: int) -> Mix:
    return (*mix[:index], count, *mix[index + 1 :])
