"""After which steps snapshots are taken, and before which one training waits: a pure plan.

A snapshot counts once its checkpoint is settled: whole, under its final name, for every rank.
Until then a crash falls back on the one before. So that it never repeats more than an interval,
the steps between two snapshots and the steps for which one may be under way share the interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHORTEST_SHARED: Final = 25
"""Steps; of a shorter interval little would be left for writing, so training waits for each."""


@dataclass(frozen=True)
class SnapshotPlan:
    """Snapshots that keep a promise: a crash repeats at most `interval` steps.

    What happens depends on steps alone, never on how fast a disk is, so that a run that goes on
    takes its snapshots where an undisturbed one does.

    Args:
        interval: `checkpoint_every`.
        device: what computes the steps, as torch calls it.
    """

    interval: int
    device: str

    @property
    def lead(self) -> int:
        """Steps for which a snapshot may be under way.

        An accelerator takes many steps during a write, which its host's cores have time for. Half
        of the interval lets the disk be slowest before training waits for it. On a CPU steps take
        as long as writes and share their cores, so few writes are worth more.
        """
        if self.interval < SHORTEST_SHARED:
            return 0
        return self.interval // (10 if self.device == "cpu" else 2)

    @property
    def period(self) -> int:
        """Steps between snapshots, which are taken after its multiples."""
        return self.interval - self.lead

    def is_due(self, step: int, *, newest: int) -> bool:
        """Return whether to take a snapshot.

        Args:
            step: the one just taken.
            newest: of the newest snapshot; 0 without one. One that was put off remains due, and
                one that was taken besides, for an evaluation, changes nothing.
        """
        return step // self.period > newest // self.period

    def must_settle(self, step: int, *, newest: int, settled: int) -> bool:
        """Return whether the newest snapshot has to be settled before a step is taken.

        Args:
            step: the next one.
            newest: of the newest snapshot.
            settled: of the newest one that all ranks know to be settled; 0 without one.
        """
        return newest > settled and step - settled > self.interval
