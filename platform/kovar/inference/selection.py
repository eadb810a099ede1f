"""Which candidate a replica takes: the fastest that proves itself, and what when it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kovar.errors import GoldenError, KovarError, ModelError
from kovar.inference.choice import Candidate, Choice, fastest, only

if TYPE_CHECKING:
    from kovar.inference.choice import Wish
    from kovar.inference.classifier_runtime import ClassifierRuntime
    from kovar.inference.measurement import Measurements

log = logging.getLogger(__name__)

FAILED = 0.0
"""The rate that is kept of a candidate that failed when it was measured, and always will."""

LASTING = (GoldenError, ModelError)
"""Failures that the same files have on the same chip again: others may pass, as want of memory."""


@dataclass
class Selection:
    """Takes one of several candidates, by measurement.

    An export that fails is no reason to stop as long as another candidate is what was wished for:
    a version that torch executes as it was evaluated can always be served. What is left out, and
    why, is logged and told by the runtime that is taken.

    Args:
        load: loads a candidate and checks it against the golden examples.
        rate: returns the texts a second of a loaded candidate.
        wish: what the spec says.
        circumstances: of a measurement: chip and threads.
    """

    load: Callable[[Candidate], ClassifierRuntime]
    rate: Callable[[ClassifierRuntime], float]
    wish: Wish
    circumstances: str
    _refusals: dict[Candidate, str] = field(default_factory=dict)

    def take(self, found: Sequence[Candidate], kept: Measurements | None) -> ClassifierRuntime:
        """Load the fastest candidate that reproduces the golden examples.

        Args:
            found: what could fulfil the wish; at least one, torch first.
            kept: the rates that were measured before; None to measure and keep nothing.

        Raises:
            GoldenError: none of them does.
        """
        if len(found) == 1:
            return self._told(self._only(found[0]), only(found[0], self.wish))
        if kept is None:
            return self._told(*self._measured(found, {}))
        with kept.alone():
            told = kept.read()
            rates = {one: told[str(one)] for one in found if str(one) in told}
            if any(rates.values()):
                missing = [one for one in found if one not in rates]
                for candidate in missing:
                    self._measure(candidate, rates)
                taken = self._known(rates, found)
            else:
                missing, rates = list(found), {}
                taken = self._measured(found, rates)
            if any(one in rates for one in missing):
                kept.write(told | {str(one): rate for one, rate in rates.items()})
        return self._told(*taken)

    def _only(self, candidate: Candidate) -> ClassifierRuntime:
        try:
            return self.load(candidate)
        except GoldenError as problem:
            raise GoldenError(f"{candidate}: {problem.message}", hint=problem.hint) from None

    def _known(
        self, rates: Mapping[Candidate, float], found: Sequence[Candidate]
    ) -> tuple[ClassifierRuntime, Choice]:
        """Load the fastest of the rates; where that fails torch, then the others."""
        for candidate, rate in rates.items():
            if rate == FAILED:
                self._refusals.setdefault(candidate, "it failed when it was measured")
        working = {one: rate for one, rate in rates.items() if rate != FAILED}
        first, *others = sorted(working, key=lambda one: -working[one])
        others += [one for one in found if one not in rates and one not in self._refusals]
        for candidate in (first, *sorted(others, key=lambda one: one.runtime != "torch")):
            loaded = self._try(candidate)
            if loaded is None:
                continue
            if candidate is first:
                return loaded, fastest(working, circumstances=self.circumstances)
            why = f"{first}, which was the fastest on {self.circumstances}, failed"
            return loaded, Choice(candidate, f"{candidate}: {why}")
        raise self._nothing()

    def _measured(
        self, found: Sequence[Candidate], rates: dict[Candidate, float]
    ) -> tuple[ClassifierRuntime, Choice]:
        """Load and measure one candidate after the other; only the fastest so far stays loaded."""
        best: ClassifierRuntime | None = None
        for candidate in found:
            highest = max(rates.values(), default=FAILED)
            loaded = self._measure(candidate, rates)
            if loaded is not None and rates[candidate] > highest:
                best = loaded
        if best is None:
            raise self._nothing()
        working = {one: rate for one, rate in rates.items() if rate != FAILED}
        return best, fastest(working, circumstances=self.circumstances)

    def _measure(
        self, candidate: Candidate, rates: dict[Candidate, float]
    ) -> ClassifierRuntime | None:
        """Load a candidate and add its rate; none where it failed for what may pass."""
        try:
            loaded = self.load(candidate)
            rates[candidate] = self.rate(loaded)
        except Exception as problem:
            self._leave_out(candidate, problem)
            if isinstance(problem, LASTING):
                rates[candidate] = FAILED
            return None
        return loaded

    def _try(self, candidate: Candidate) -> ClassifierRuntime | None:
        try:
            return self.load(candidate)
        except Exception as problem:
            self._leave_out(candidate, problem)
        return None

    def _leave_out(self, candidate: Candidate, problem: Exception) -> None:
        """Note a candidate that cannot be taken; what is no failure of an export is raised."""
        if candidate.export is None and not isinstance(problem, GoldenError):
            raise problem
        # The message of a library's own exception may quote a golden text.
        why = problem.message if isinstance(problem, KovarError) else type(problem).__name__
        log.warning("%s is left out: %s", candidate, why)
        self._refusals[candidate] = why

    def _told(self, loaded: ClassifierRuntime, choice: Choice) -> ClassifierRuntime:
        loaded.left_out = tuple(str(one) for one in self._refusals)
        left_out = [f"left out: {one} ({why})" for one, why in self._refusals.items()]
        loaded.reason = "; ".join([choice.reason, *left_out])
        return loaded

    def _nothing(self) -> GoldenError:
        told = "; ".join(f"{one}: {why}" for one, why in self._refusals.items())
        return GoldenError(
            f"nothing executes the version as it was evaluated: {told}",
            hint="make its exports again with jobs/export.py, or take runtime: torch",
        )
