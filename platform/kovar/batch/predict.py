"""Batch inference: a version on files of any size, part by part, each exactly once.

The driver decides the parts and starts the workers; each worker reads a part, predicts it and
writes it whole. Finished parts are never computed again, whatever was killed in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.batch.kinds import check_pair
from kovar.batch.output import OutputFolder, WrittenPart, pending
from kovar.batch.parts import Part, divide, find_inputs
from kovar.batch.plan import WorkerPlan, plan_workers, unplanned_workers
from kovar.batch.pool import answered_blocks
from kovar.batch.reading import check_columns, header_of, read_part
from kovar.batch.spec import PredictSpec
from kovar.batch.worker import RuntimeChoice, answer, problem_row
from kovar.config import format_size
from kovar.errors import DataError, KovarError, RunError, UserError
from kovar.evaluation import THRESHOLD
from kovar.inference import TorchScorer, TorchTagger
from kovar.settings import Settings
from kovar.training.cluster import connected_cluster
from kovar.training.folder import write_json
from kovar.training.progress import RunProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from kovar.inference import Loaded
    from kovar.registry import Version
    from kovar.resources import Cluster

HASHING_THREADS = 4


@dataclass(frozen=True)
class PredictResult:
    """Finished predictions.

    Args:
        folder: where they are.
        version: what predicted.
        parts: the output files, in the order of the input.
        num_computed: how many of them this job computed; the others were finished before.
    """

    folder: OutputFolder
    version: Version
    parts: tuple[WrittenPart, ...]
    num_computed: int

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return sum(part.num_rows for part in self.parts)

    @property
    def num_bad(self) -> int:
        """Rows without a prediction."""
        return sum(part.num_bad for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "folder": str(self.folder.root),
            "model": self.version.model,
            "version": self.version.number,
            "digest": self.version.digest,
            "num_rows": self.num_rows,
            "num_bad": self.num_bad,
            "num_parts": len(self.parts),
            "num_computed": self.num_computed,
        }

    def summary(self) -> str:
        """Return what a user wants to know first, a fact a line."""
        before = len(self.parts) - self.num_computed
        size = format_size(sum(part.size_bytes for part in self.parts))
        facts = {
            "version": f"{self.version} ({self.version.digest})",
            "rows": f"{self.num_rows:,}" + (f", {self.num_bad:,} bad" if self.num_bad else ""),
            "parts": f"{len(self.parts):,} ({size})"
            + (f", {before:,} of them finished before" if before else ""),
            "folder": str(self.folder.root),
            "manifest": str(self.folder.manifest),
        }
        return "\n".join(f"{name:<8} {fact}" for name, fact in facts.items())


class PredictWorker:
    """What Ray Data starts: predicts and writes whole parts.

    Args:
        choice: the version and what executes it.
        spec: what is read and written.
        folder: where the parts go.
        parts: all parts, by number.
    """

    def __init__(
        self,
        choice: RuntimeChoice,
        spec: PredictSpec,
        folder: OutputFolder,
        parts: Mapping[int, Part],
    ) -> None:
        self._choice, self._spec, self._folder, self._parts = choice, spec, folder, parts
        self._problem: KovarError | None = None
        try:
            self._runtime = choice.load()
        except KovarError as problem:
            self._problem = problem

    def __call__(self, block: pa.Table) -> pa.Table:
        """Write the part of a block, and describe the file."""
        import pyarrow as pa

        if self._problem is not None:
            return problem_row(self._problem)
        part = self._parts[block.column("part")[0].as_py()]
        try:
            written = self._folder.write(part, self._predicted(part))
        except KovarError as problem:
            return problem_row(problem)
        fields = {name: [value] for name, value in asdict(written).items()}
        return pa.table({"part": [part.number], **fields})

    def _predicted(self, part: Part) -> Iterator[pa.Table]:
        import pyarrow as pa

        columns = list(dict.fromkeys((*_inputs(self._spec), *self._spec.input.keep)))
        done = 0
        for table in read_part(part, columns):
            yield self._answered(table, part, done)
            done += table.num_rows
        if not done:
            nothing = {name: pa.array([], pa.string()) for name in columns}
            yield self._answered(pa.table(nothing), part, done)

    def _answered(self, table: pa.Table, part: Part, done: int) -> pa.Table:
        import pyarrow as pa

        columns = [
            _texts(table.column(name), part, done, spec=self._spec) for name in _inputs(self._spec)
        ]
        rows = [None if None in row else row for row in zip(*columns, strict=True)]
        wanted = [row[0] if len(row) == 1 else row for row in rows if row is not None]
        # A row without text takes no answer: its place in the list of answers is null.
        places = iter(range(len(wanted)))
        order = pa.array([None if row is None else next(places) for row in rows], pa.int64())
        max_tokens = self._choice.max_tokens
        answered = _columns(self._runtime, wanted, order, max_tokens=max_tokens)
        kept = {name: table.column(name) for name in self._spec.input.keep}
        return pa.table(kept | answered)


def _inputs(spec: PredictSpec) -> tuple[str, ...]:
    """Return the columns that the version reads."""
    pair = spec.input.text_pair
    return (spec.input.text,) if pair is None else (spec.input.text, pair)


def _columns(
    runtime: Loaded, texts: Sequence[Any], order: pa.Int64Array, *, max_tokens: int
) -> dict[str, pa.Array]:
    """Return what a version answers, by column of the output.

    Args:
        runtime: a loaded version.
        texts: what it reads.
        order: of each row of the output, the place of its text; null without an answer.
        max_tokens: padded tokens that a batch may have.
    """
    import numpy as np
    import pyarrow as pa

    def column(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(order)

    if isinstance(runtime, TorchTagger):
        tags = [one.tags for one in runtime.tag(texts, max_tokens=max_tokens)]
        return {"tags": column(tags, pa.list_(pa.string()))}
    if isinstance(runtime, TorchScorer):
        losses = runtime.score(texts, max_tokens=max_tokens)
        return {
            "loss": column([one.loss for one in losses], pa.float32()),
            "num_tokens": column([one.num_tokens for one in losses], pa.int32()),
        }
    labels = runtime.labels
    scores = answer(runtime, texts, max_tokens=max_tokens).table(len(labels))
    each = [column(scores[:, index], pa.float32()) for index in range(len(labels))]
    table = pa.StructArray.from_arrays(each, names=list(labels))
    if runtime.any_labels:
        named = [[labels[i] for i in np.flatnonzero(row >= THRESHOLD)] for row in scores]
        return {"labels": column(named, pa.list_(pa.string())), "scores": table}
    return {
        "label": column([labels[index] for index in scores.argmax(axis=1)], pa.string()),
        "score": column(scores.max(axis=1, initial=0.0), pa.float32()),
        "scores": table,
    }


def _texts(
    column: pa.ChunkedArray, part: Part, done: int, *, spec: PredictSpec
) -> list[str | None]:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise DataError(
            f"{part.path.name}: the column holds no texts",
            field="input.text",
            got=f"{spec.input.text}: {kind}",
            allowed="text in UTF-8",
        )
    texts = [text if text and text.strip() else None for text in column.to_pylist()]
    if spec.input.bad_rows == "fail" and None in texts:
        row = done + texts.index(None) + 1
        raise DataError(
            f"{part}: row {row:,} of this part has no text",
            field="input.text",
            hint="repair the file, or set input.bad_rows: null to predict nothing for such rows; "
            "then run the job again: finished parts stay",
        )
    return texts


def predict_files(
    spec: PredictSpec,
    *,
    base_dir: Path,
    settings: Settings,
    progress: RunProgress | None = None,
    cluster: Cluster | None = None,
    planned: bool = True,
) -> PredictResult:
    """Predict every row of the input; go on where an earlier submission of the job ended.

    Args:
        spec: what is predicted, with what, and where it goes.
        base_dir: folder that relative paths in the spec start from.
        settings: where caches and the registry live.
        progress: shows what happens; nothing by default.
        cluster: the declared cluster; when absent, the one that this process is connected to,
            else this machine.
        planned: prove that the workers can be placed before anything starts.

    Raises:
        UserError: the spec, the input, the output or the placement is at fault.
        GoldenError: a runtime does not answer as the version was evaluated.
        RunError: the workers failed, or the input changed meanwhile.
    """
    from filelock import FileLock, Timeout

    from kovar.registry import Registry, check_shared

    progress = progress or RunProgress(quiet=True)
    with progress.showing():
        plan = (
            plan_workers(spec, cluster or connected_cluster())
            if planned
            else unplanned_workers(spec)
        )
        check_shared(settings, num_nodes=plan.num_nodes)
        with Registry.open(settings) as registry:
            version = registry.version(spec.model, spec.version)
            registry.check_signature(version)
        check_pair(version, spec.input.text_pair, field="input.text_pair")
        folder = OutputFolder((base_dir / spec.output.folder).resolve(), spec.output.format)
        files = find_inputs((base_dir / Path(spec.input.source).expanduser()).resolve())
        parts = divide(files, part_size=spec.input.part_size)
        _check_input(spec, parts)
        inputs = _digests(files, progress)
        job = _job(spec, version, plan, inputs)
        folder.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder.lock, timeout=0):
                folder.claim(job)
                choice = RuntimeChoice.of(spec, version, plan, settings)
                return _predict(spec, folder, parts, choice, plan, job, inputs, progress)
        except Timeout:
            raise UserError(
                "another process writes this folder",
                field="output.folder",
                got=str(folder.root),
                hint="wait for it: submitted again afterwards, its result is returned",
            ) from None


def _check_input(spec: PredictSpec, parts: Sequence[Part]) -> None:
    """Look at what the first file says of its columns; each part is checked when it is read."""
    if not parts:
        raise DataError("there is no row to predict", field="input.source", got=spec.input.source)
    first = parts[0]
    wanted = (*_inputs(spec), *spec.input.keep)
    match first.format:
        case "parquet":
            from pyarrow import parquet

            check_columns(parquet.read_schema(first.path).names, wanted)
        case "csv" | "tsv":
            check_columns(header_of(first), wanted)


def _digests(files: Sequence[Path], progress: RunProgress) -> dict[str, dict[str, Any]]:
    """Hash the inputs; name → digest, size and time of change."""

    def look(file: Path) -> dict[str, Any]:
        seen = file.stat()
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return {"sha256": digest, "size_bytes": seen.st_size, "mtime_ns": seen.st_mtime_ns}

    found = {}
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        for done, (file, facts) in enumerate(zip(files, pool.map(look, files), strict=True), 1):
            found[str(file)] = facts
            progress("hashing inputs", done, len(files))
    return found


def _job(
    spec: PredictSpec, version: Version, plan: WorkerPlan, inputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what decides the output: a job that agrees in all of it goes on in the folder."""
    return {
        "format": 1,
        "model": version.model,
        "version": version.digest,
        "runtime": spec.runtime,
        "precision": plan.precision.precision,
        "max_tokens": spec.max_tokens,
        "part_size": spec.input.part_size,
        "text": spec.input.text,
        **({} if spec.input.text_pair is None else {"text_pair": spec.input.text_pair}),
        "keep": list(spec.input.keep),
        "output": spec.output.format,
        "inputs": {path: facts["sha256"] for path, facts in inputs.items()},
    }


def _predict(
    spec: PredictSpec,
    folder: OutputFolder,
    parts: Sequence[Part],
    choice: RuntimeChoice,
    plan: WorkerPlan,
    job: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
    progress: RunProgress,
) -> PredictResult:
    left = pending(folder, parts)
    written: dict[int, WrittenPart] = {}
    if left:
        folder.manifest.unlink(missing_ok=True)
        progress("starting workers", 0, 0)
        progress("predicting", len(parts) - len(left), len(parts))
        for number, one in _computed(spec, folder, left, choice, plan):
            written[number] = one
            progress("predicting", len(parts) - len(left) + len(written), len(parts))
    _refuse_changed(inputs)
    described = tuple(written.get(part.number) or folder.describe(part) for part in parts)
    write_json(
        folder.manifest,
        {**job, "inputs": inputs, "parts": [asdict(one) for one in described]},
    )
    return PredictResult(folder, choice.version, described, len(written))


def _computed(
    spec: PredictSpec,
    folder: OutputFolder,
    parts: Sequence[Part],
    choice: RuntimeChoice,
    plan: WorkerPlan,
) -> Iterator[tuple[int, WrittenPart]]:
    import pyarrow as pa

    arguments = {
        "choice": choice,
        "spec": spec,
        "folder": folder,
        "parts": {part.number: part for part in parts},
    }
    blocks = [pa.table({"part": [part.number]}) for part in parts]
    for table in answered_blocks(
        blocks, PredictWorker, arguments, plan=plan, timeout_s=choice.placement_timeout_s
    ):
        for row in table.to_pylist():
            yield row.pop("part"), WrittenPart(**row)


def _refuse_changed(inputs: Mapping[str, Mapping[str, Any]]) -> None:
    for path, facts in inputs.items():
        seen = Path(path).stat()
        if (seen.st_size, seen.st_mtime_ns) != (facts["size_bytes"], facts["mtime_ns"]):
            raise RunError(
                f"{path} changed while it was read",
                hint="predict again into another folder, from a file that stays as it is",
            )
