"""What of the trials' files is kept: the weights of the best one, and what reports read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovar.tuning.live import score_of
from kovar.tuning.trial import drop_checkpoints, drop_weights

if TYPE_CHECKING:
    from kovar.tuning.folder import SweepFolder
    from kovar.tuning.ledger import Entry
    from kovar.tuning.spec import SweepSpec
    from kovar.tuning.state import SweepState


def score_to_beat(state: SweepState, spec: SweepSpec) -> float | None:
    """Return the score that a trial must beat to be the winner; None where that is not known.

    Over several seeds the mean decides, so a trial that is not the best may be of the best
    configuration.
    """
    if spec.seeds > 1:
        return None
    scores = [
        score
        for trial in state.trials.values()
        if trial.status == "finished" and (score := score_of(trial, spec)) is not None
    ]
    return (max if spec.mode == "max" else min)(scores, default=None)


class Keeper:
    """Removes what trials leave that nobody will need, as they end.

    Args:
        folder: of the sweep.
        spec: with its metric and mode resolved.
    """

    def __init__(self, folder: SweepFolder, spec: SweepSpec) -> None:
        self._folder, self._spec = folder, spec

    def hear(self, entry: Entry, state: SweepState) -> None:
        """Take a line of the ledger."""
        if entry.kind != "ended" or entry.fields["status"] == "unfinished":
            return
        drop_checkpoints(self._folder.trial(entry.fields["trial"]))
        if self._spec.seeds == 1:
            self._keep_one(state)

    def _keep_one(self, state: SweepState) -> None:
        """Keep the weights of the best trial so far; of equal ones those of the first."""
        sign = 1 if self._spec.mode == "max" else -1
        holders = [
            (sign * score, -trial.number)
            for trial in state.trials.values()
            if trial.status == "finished"
            and (trial.end or {}).get("weights")
            and (score := score_of(trial, self._spec)) is not None
        ]
        for _, negative in sorted(holders)[:-1]:
            drop_weights(self._folder.trial(-negative))
