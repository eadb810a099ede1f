"""What the workers of batch jobs share: a version, loaded once and proven by its golden examples.

A worker returns Kovar's own errors as rows instead of raising them. Ray Data would wrap them, lose
their class where they come from a constructor, and print pages of its own frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kovar import errors
from kovar.errors import KovarError, RunError
from kovar.inference import Loaded, Runtime, Text, load_any, plan_batches
from kovar.registry import Version
from kovar.registry.artifacts import open_artifacts
from kovar.registry.cache import VersionCache

if TYPE_CHECKING:
    from typing import Literal

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from kovar.batch.plan import WorkerPlan
    from kovar.batch.spec import EvaluateSpec, PredictSpec
    from kovar.precision import Precision
    from kovar.settings import Settings

PROBLEM = "problem"
"""Name of the column that holds the class of an error; `message` holds its text."""


@dataclass(frozen=True)
class RuntimeChoice:
    """All that a worker needs to load a version.

    Args:
        version: the version, resolved.
        artifact_root: where its blobs are.
        cache_dir: where verified copies are kept on a worker's machine.
        runtime: what executes it.
        precision: number format.
        device: kind of chip.
        num_threads: CPU threads of a worker.
        max_tokens: padded tokens that run together.
        placement_timeout_s: seconds that workers may wait for nodes.
    """

    version: Version
    artifact_root: str
    cache_dir: Path
    runtime: Literal["torch"]
    precision: Precision
    device: Literal["cpu", "cuda"]
    num_threads: int
    max_tokens: int
    placement_timeout_s: float

    @classmethod
    def of(
        cls,
        spec: EvaluateSpec | PredictSpec,
        version: Version,
        plan: WorkerPlan,
        settings: Settings,
    ) -> RuntimeChoice:
        """Choose what a spec says, on the hardware that was planned."""
        return cls(
            version=version,
            artifact_root=settings.artifact_root,
            cache_dir=settings.cache_dir,
            runtime=spec.runtime,
            precision=plan.precision.precision,
            device=plan.device,
            num_threads=math.ceil(plan.request.cpus),
            max_tokens=spec.max_tokens,
            placement_timeout_s=settings.placement_timeout_s,
        )

    def load(self) -> Loaded:
        """Fetch, verify and load the version.

        Raises:
            DamagedArtifactError: a file is missing, truncated or altered.
            GoldenError: the runtime does not answer as the version was evaluated.
        """
        folder = VersionCache(self.cache_dir / "versions").materialize(
            self.version.digest,
            self.version.manifest,
            open_artifacts(self.artifact_root),
            rehash=True,
        )
        return load_any(
            folder,
            runtime=self.runtime,
            precision=self.precision,
            num_threads=self.num_threads,
            device=self.device,
            require_golden=True,
        )


@dataclass(frozen=True)
class Answers:
    """What a runtime answered.

    Args:
        rows: numbers of each text: the probabilities of all labels, or what the task makes of it.
        lengths: tokens that were read of each text, shape [rows].
    """

    rows: Sequence[Sequence[float]]
    lengths: npt.NDArray[np.int64]

    def table(self, num_columns: int) -> npt.NDArray[np.float64]:
        """Return the numbers as a table, where every text has as many, shape [rows, columns]."""
        import numpy as np

        return np.asarray(self.rows, dtype=np.float64).reshape(-1, num_columns)


def answer(runtime: Runtime, texts: Sequence[Text], *, max_tokens: int) -> Answers:
    """Ask a runtime for the probabilities of all labels, in batches of like length.

    Args:
        runtime: a loaded version.
        texts: the texts, or pairs of them, any number.
        max_tokens: padded tokens (rows × longest) that a batch may have.
    """
    import numpy as np

    encoded = runtime.tokenize(texts) if texts else []
    lengths = np.array([item.length for item in encoded], dtype=np.int64)
    scores = np.empty((len(encoded), len(runtime.labels)))
    for rows in plan_batches(lengths.tolist(), max_tokens=max_tokens):
        predictions = runtime.run([encoded[row] for row in rows])
        scores[rows] = [[one.scores[label] for label in runtime.labels] for one in predictions]
    return Answers(scores.tolist(), lengths)


def problem_row(error: KovarError) -> pa.Table:
    """Return an error as a row."""
    import pyarrow as pa

    return pa.table({PROBLEM: [type(error).__name__], "message": [str(error)]})


def raise_problem(table: pa.Table) -> None:
    """Raise the error that a worker returned, if it is one.

    Raises:
        KovarError: of the class that it had in the worker.
    """
    if PROBLEM in table.column_names:
        kind = getattr(errors, table.column(PROBLEM)[0].as_py(), RunError)
        raise kind(table.column("message")[0].as_py())
