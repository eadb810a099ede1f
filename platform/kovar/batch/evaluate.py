"""Evaluation of a registered version on a data set, over several workers, kept beside the version.

An evaluation's id is made of its content, so the same submission writes into the same folder, and
the registry keeps equal findings once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.batch.folder import EvaluationFolder
from kovar.batch.kinds import kind_of
from kovar.batch.plan import WorkerPlan, plan_workers, unplanned_workers
from kovar.batch.pool import answered_blocks
from kovar.batch.rows import LabeledRows, read_rows, trained_on
from kovar.batch.spec import EvaluateSpec
from kovar.batch.worker import Answers, RuntimeChoice, problem_row
from kovar.config import canonical_json
from kovar.errors import KovarError, UserError
from kovar.evaluation import Assessment, column_slices, length_slices
from kovar.events import EventLog
from kovar.settings import Settings, ensure_writable
from kovar.training.cluster import connected_cluster
from kovar.training.folder import write_json
from kovar.training.progress import RunProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from kovar.registry import Registry, StoredEvaluation, Version
    from kovar.resources import Cluster


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation."""

    folder: EvaluationFolder
    version: Version
    stored: StoredEvaluation
    assessment: Assessment
    trained_on: bool
    """Whether the version was trained on some of the rows, as far as that is recorded."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "run": self.folder.run,
            "folder": str(self.folder.root),
            "model": self.version.model,
            "version": self.version.number,
            "digest": self.version.digest,
            "evaluation": self.stored.digest,
            "trained_on": self.trained_on,
            **self.stored.record.model_dump(mode="json"),
        }

    def summary(self) -> str:
        """Return where everything is, a fact a line."""
        facts = {
            "version": f"{self.version} ({self.version.digest})",
            "evaluation": self.stored.digest,
            "report": str(self.folder.page),
            **_pictures(self.folder),
        }
        if self.trained_on:
            facts["caution"] = "the version was trained on some of these rows"
        return "\n".join(f"{name:<10} {fact}" for name, fact in facts.items())


def _pictures(folder: EvaluationFolder) -> dict[str, str]:
    there = [str(path) for path in (folder.reliability, folder.confusion) if path.is_file()]
    return {"pictures": ", ".join(there)} if there else {}


class EvaluationWorker:
    """What Ray Data starts: answers blocks of texts.

    Args:
        choice: the version and what executes it.
    """

    def __init__(self, choice: RuntimeChoice) -> None:
        self._choice = choice
        self._problem: KovarError | None = None
        try:
            self._runtime = choice.load()
        except KovarError as problem:
            self._problem = problem

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return row number, answer and length of each row of a block."""
        import pyarrow as pa

        from kovar.precision import detect_device

        if self._problem is not None:
            return problem_row(self._problem)
        contents = block.column("content").to_pylist()
        kind = kind_of(self._choice.version)
        found = kind.ask(self._runtime, contents, max_tokens=self._choice.max_tokens)
        chip = detect_device(self._choice.device).name
        return pa.table(
            {
                "row": block.column("row"),
                "answer": pa.array(found.rows, pa.list_(pa.float64())),
                "length": pa.array(found.lengths),
                "runtime": [self._runtime.name] * len(contents),
                "precision": [self._runtime.precision] * len(contents),
                "chip": [chip] * len(contents),
            }
        )


def evaluate_version(
    spec: EvaluateSpec,
    *,
    base_dir: Path,
    settings: Settings,
    progress: RunProgress | None = None,
    cluster: Cluster | None = None,
    planned: bool = True,
) -> EvaluationResult:
    """Run a version on every row of a data set, and keep what was found beside the version.

    Args:
        spec: what is evaluated, and on what.
        base_dir: folder that relative paths in the spec start from.
        settings: where runs, caches and the registry live.
        progress: shows what happens; nothing by default.
        cluster: the declared cluster; when absent, the one that this process is connected to,
            else this machine.
        planned: prove that the workers can be placed before anything starts.

    Raises:
        UserError: the spec, the data, the version or the placement is at fault.
        GoldenError: a runtime does not answer as the version was evaluated.
        RunError: the workers failed.
    """
    from filelock import FileLock, Timeout

    from kovar.registry import Registry, check_dataset, check_shared

    progress = progress or RunProgress(quiet=True)
    with progress.showing(), Registry.open(settings) as registry:
        plan = (
            plan_workers(spec, cluster or connected_cluster())
            if planned
            else unplanned_workers(spec)
        )
        check_shared(settings, num_nodes=plan.num_nodes)
        version = registry.version(spec.model, spec.version)
        registry.check_signature(version)
        check_dataset(version, spec.data.name)
        rows = read_rows(
            spec.data,
            version,
            columns=spec.slices.columns,
            cache_dir=settings.cache_dir,
            base_dir=base_dir,
            progress=progress,
        )
        folder = _folder(spec, version, rows, plan, settings)
        choice = RuntimeChoice.of(spec, version, plan, settings)
        try:
            with (
                FileLock(folder.lock, timeout=0),
                EventLog(folder.events, run=folder.run) as log,
            ):
                return _evaluate(spec, folder, rows, plan, choice, registry, log, progress)
        except Timeout:
            raise UserError(
                f"{folder.run} is already being executed by another process",
                hint="wait for it: its result is kept beside the version",
            ) from None


def _folder(
    spec: EvaluateSpec, version: Version, rows: LabeledRows, plan: WorkerPlan, settings: Settings
) -> EvaluationFolder:
    ensure_writable(settings.runs_dir, field="runs_dir")
    identity = {
        "spec": spec.model_dump(mode="json"),
        "version": version.digest,
        "rows": rows.digest,
        "device": plan.precision.device,
    }
    digest = hashlib.sha256(canonical_json(identity)).hexdigest()[:10]
    folder = EvaluationFolder(settings.runs_dir / f"{spec.model}-{spec.data.name}-{digest}")
    folder.root.mkdir(exist_ok=True)
    return folder


def _evaluate(
    spec: EvaluateSpec,
    folder: EvaluationFolder,
    rows: LabeledRows,
    plan: WorkerPlan,
    choice: RuntimeChoice,
    registry: Registry,
    log: EventLog,
    progress: RunProgress,
) -> EvaluationResult:
    from kovar.batch.report import write_report

    started = time.monotonic()
    log.emit("queued", spec=spec.data.name, kind=spec.kind)
    log.emit("planned", num_workers=plan.num_max, **plan.to_json())
    write_json(folder.plan, plan.to_json())
    write_json(folder.spec, spec.model_dump(mode="json"))
    try:
        answers, facts = _answers(spec, rows, choice, plan, progress)
    except BaseException as error:
        log.emit("failed", error=type(error).__name__, message=str(error))
        raise
    groups = {name: column_slices(values) for name, values in rows.columns.items()}
    if spec.slices.lengths:
        lengths = length_slices(answers.lengths.tolist(), edges=spec.slices.lengths)
        groups = {"length": lengths} | groups
    assessment = kind_of(choice.version).judge(rows.names, answers, choice.version, groups)
    stored = _stored(spec, rows, choice.version, assessment, answers, facts, registry)
    result = EvaluationResult(
        folder, choice.version, stored, assessment, trained_on(choice.version, rows)
    )
    write_report(result)
    log.emit(
        "evaluated",
        step=0,
        data=spec.data.name,
        metrics=assessment.metrics.to_json(),
        seconds=round(time.monotonic() - started, 3),
        final=True,
    )
    write_json(folder.result, result.to_json())
    return result


def _answers(
    spec: EvaluateSpec,
    rows: LabeledRows,
    choice: RuntimeChoice,
    plan: WorkerPlan,
    progress: RunProgress,
) -> tuple[Answers, dict[str, str]]:
    """Collect the answers of all rows, in their order, and what computed them."""
    import numpy as np

    num_rows = len(rows.contents)
    found: list[list[float]] = [[]] * num_rows
    lengths = np.zeros(num_rows, np.int64)
    facts: dict[str, str] = {}
    progress("starting workers", 0, 0)
    done = 0
    blocks = _blocks(rows.contents, spec.batch_rows)
    for table in answered_blocks(
        blocks,
        EvaluationWorker,
        {"choice": choice},
        plan=plan,
        timeout_s=choice.placement_timeout_s,
    ):
        where = table.column("row").to_numpy()
        for row, one in zip(where.tolist(), table.column("answer").to_pylist(), strict=True):
            found[row] = one
        lengths[where] = table.column("length").to_numpy()
        facts = {name: table.column(name)[0].as_py() for name in ("runtime", "precision", "chip")}
        done += len(where)
        progress("evaluating", done, num_rows)
    return Answers(found, lengths), facts


def _blocks(contents: Sequence[Any], batch_rows: int) -> list[pa.Table]:
    """Divide rows into blocks of like length, the longest first: no worker ends with them."""
    import pyarrow as pa

    sizes = [len(one) if isinstance(one, str) else sum(map(len, one)) for one in contents]
    order = sorted(range(len(contents)), key=lambda row: (-sizes[row], row))
    return [
        pa.table({"row": rows, "content": [contents[row] for row in rows]})
        for rows in (
            order[start : start + batch_rows] for start in range(0, len(order), batch_rows)
        )
    ]


def _stored(
    spec: EvaluateSpec,
    rows: LabeledRows,
    version: Version,
    assessment: Assessment,
    answers: Answers,
    facts: dict[str, str],
    registry: Registry,
) -> StoredEvaluation:
    from kovar.registry import EvaluationRecord

    found = assessment.to_json()
    record = EvaluationRecord(
        dataset=spec.data.name,
        data=rows.facts,
        rows=rows.digest,
        intervals={name: (low, high) for name, (low, high) in assessment.intervals.items()},
        metrics=found["metrics"],
        reliability=found["reliability"],
        slices=found["slices"],
        runtime=facts["runtime"],
        precision=facts["precision"],
        chip=facts["chip"],
    )
    predictions = kind_of(version).predictions(rows.names, answers, version, rows.digest)
    return registry.add_evaluation(version, record, predictions)
