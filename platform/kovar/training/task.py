"""What every worker of a run is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kovar.resources import Request
from kovar.training.spec import FineTuneSpec

if TYPE_CHECKING:
    from kovar.data import TokenizedDataset
    from kovar.models import BaseModelFiles


Purpose = Literal["version", "trial"]
"""What the worker leaves: the folder of a version; or a trial's weights, scores and answers."""


@dataclass(frozen=True)
class WorkerTask:
    """All that a worker needs; the folders are shared by the nodes."""

    spec: FineTuneSpec
    folder: Path
    dataset: TokenizedDataset
    base: BaseModelFiles
    request: Request
    """The hardware that each worker is given."""
    num_threads: int
    checkpoint_mirror: str | None = None
    """Where copies of checkpoints go; see kovar.training.mirror."""
    purpose: Purpose = "version"
    saves_updates: bool = False
    """Whether a checkpoint of an evaluated step lies in the folder before its scores are told."""
    weights_bar: float | None = None
    """A trial's weights are left only where its watched metric is better than this."""
