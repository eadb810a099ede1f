"""From the ledger's lines to TensorBoard's event files, while a sweep runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovar.tuning.folder import SweepFolder
from kovar.tuning.record import Evaluation
from kovar.tuning.report import BOARD, LiveBoard, facts_of
from kovar.tuning.spec import SweepSpec

if TYPE_CHECKING:
    from kovar.tuning.ledger import Entry
    from kovar.tuning.state import SweepState


class BoardFeed:
    """Hears the lines that a driver writes.

    Args:
        folder: of the sweep.
        spec: with its metric, mode and select resolved.
    """

    def __init__(self, folder: SweepFolder, spec: SweepSpec) -> None:
        self._board = LiveBoard(folder.root / BOARD, facts_of(spec))

    def hear(self, entry: Entry, state: SweepState) -> None:
        """Take one line, once the state knows it."""
        fields = entry.fields
        if entry.kind == "started":
            trial = state.trials[fields["trial"]]
            self._board.started(
                trial.number, configuration=trial.configuration, point=trial.point, at=entry.at
            )
        elif entry.kind == "reported" and "metrics" in fields:
            evaluation = Evaluation(fields["step"], fields["seconds"], fields["metrics"])
            self._board.evaluated(fields["trial"], evaluation, at=entry.at)
