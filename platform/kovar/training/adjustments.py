"""What a run changed about itself to go on, remembered so that a resumed run repeats it.

The spec says how a run begins. A run whose numbers overflow goes on in a safer precision, one that
runs out of memory computes with smaller micro-batches, and a measured micro-batch stays what it
was when it was measured. All of it is in one small file of the run's folder, and in checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from kovar.precision import Precision
from kovar.training.folder import write_json
from kovar.training.halves import Weights


@dataclass(frozen=True)
class Change:
    """From one step on the run computes in another precision.

    Args:
        after_step: the last step that was computed as before; 0 for none.
        precision: from there on.
        weights: the format that weights are kept in, from there on.
        reason: for the event log and the card.
    """

    after_step: int
    precision: Precision
    weights: Weights
    reason: str


@dataclass(frozen=True)
class Adjustments:
    """All changes of one run.

    Args:
        changes: in the order in which they were made.
        micro_batch_tokens: the limit in force, where it is not the spec's.
    """

    changes: tuple[Change, ...] = field(default=())
    micro_batch_tokens: int | None = None

    @classmethod
    def read(cls, path: Path) -> Adjustments:
        """Read the file of a run; without one nothing was changed."""
        if not path.exists():
            return cls()
        return cls.of(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Adjustments:
        """Build from what `to_json` returned."""
        changes = tuple(Change(**change) for change in told["changes"])
        return cls(changes, told["micro_batch_tokens"])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "changes": [asdict(change) for change in self.changes],
            "micro_batch_tokens": self.micro_batch_tokens,
        }

    def write(self, path: Path) -> None:
        """Remember; on return it survives a power cut."""
        write_json(path, self.to_json())

    def resumed_at(self, step: int) -> Adjustments:
        """Return what holds for a run that goes on after a step.

        A change that was made later is forgotten: the same steps lead to the same change again.
        """
        kept = tuple(change for change in self.changes if change.after_step <= step)
        return replace(self, changes=kept)

    def limit(self, asked: int | Literal["auto"] | None) -> int | None:
        """Return the padded tokens of one pass, from what the spec asks for; None for no limit."""
        if self.micro_batch_tokens is not None:
            return self.micro_batch_tokens
        return None if asked == "auto" else asked

    def with_change(self, change: Change) -> Adjustments:
        """Add a change."""
        return replace(self, changes=(*self.changes, change))


UNCHANGED: Final = Adjustments()
