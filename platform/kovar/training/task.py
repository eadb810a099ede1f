"""What every worker of a run is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.resources import Request
from kovar.training.spec import FineTuneSpec

if TYPE_CHECKING:
    from kovar.data import TokenizedDataset
    from kovar.models import BaseModelFiles


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
