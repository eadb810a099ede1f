"""How a trial ended, in one small verified file that is written last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from kovar.config import canonical_json
from kovar.training.trial.usage import Usage

END_FILE: Final = "trial.json"

EndStatus = Literal["finished", "diverged", "failed"]


@dataclass(frozen=True)
class TrialEnd:
    """What a trial that ran to an end of its own leaves.

    Args:
        status: `finished`; `diverged`: the loss, the gradients or the scores were not finite;
            `failed`: it cannot go on, whoever starts it again.
        reason: why it did not finish.
        metrics: of the task, on the evaluation split, computed in fp32 whatever the trial computed
            in, so that trials are comparable; empty unless finished.
        step: the step whose weights and metrics these are.
        precision: as resolved on its chip; None if it never started.
        precision_reason: why this precision.
        chip: what it computed on.
        usage: of its last stay.
        incidents: what happened to it, in words.
        weights: file of the trained weights in the trial's folder; None where the trial cannot be
            the best.
        weights_digest: SHA-256 of that file's content, whether it was written or not.
        predictions: Parquet file of its answers in the trial's folder.
    """

    status: EndStatus
    reason: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    precision: str | None = None
    precision_reason: str | None = None
    chip: str | None = None
    usage: Usage = field(default_factory=Usage)
    incidents: tuple[str, ...] = ()
    weights: str | None = None
    weights_digest: str | None = None
    predictions: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"incidents": list(self.incidents)}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> TrialEnd:
        """Build from what `to_json` returned."""
        fields = {"usage": Usage.of(told["usage"]), "incidents": tuple(told["incidents"])}
        return cls(**{**told, **fields})

    def write(self, folder: Path) -> None:
        """Write the file whole, without waiting for the disk."""
        told = self.to_json()
        partial = folder / f".{END_FILE}.{os.getpid()}"
        partial.write_text(json.dumps({"v": 1, "sha256": _digest(told), "end": told}))
        partial.replace(folder / END_FILE)

    @classmethod
    def read(cls, folder: Path) -> TrialEnd | None:
        """Return the end of the trial of a folder; None if there is none, or a damaged one."""
        try:
            stored = json.loads((folder / END_FILE).read_text())
            if stored["sha256"] != _digest(stored["end"]):
                return None
            return cls.of(stored["end"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(told)).hexdigest()
