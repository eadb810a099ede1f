"""The output folder of a prediction job: whole files under fixed names, and a manifest at the end.

A part appears under its name only when it is whole and on the disk: it is written under a temporary
name first. So a job that was killed finds its finished parts and computes none of them again.
`job.json` says what the folder is for; a job that would write something else there is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kovar.batch.parts import Part
from kovar.errors import SettingsError, UserError
from kovar.training.folder import write_json

if TYPE_CHECKING:
    import pyarrow as pa

_TEMPORARY = ".tmp"

ANSWERS: Final = ("label", "labels", "tags", "loss")
"""What a version answers with stands in one of these columns; null where it has no answer."""


@dataclass(frozen=True)
class WrittenPart:
    """One finished output file.

    Args:
        name: its name.
        sha256: digest of its content.
        size_bytes: its length.
        num_rows: rows in it.
        num_bad: rows without a prediction.
    """

    name: str
    sha256: str
    size_bytes: int
    num_rows: int
    num_bad: int


@dataclass(frozen=True)
class OutputFolder:
    """Paths below `root`, and what is written there.

    Args:
        root: the folder.
        format: format of the parts.
    """

    root: Path
    format: Literal["parquet", "jsonl"]

    @property
    def job(self) -> Path:
        """What the folder is for: version, inputs and settings. Written first."""
        return self.root / "job.json"

    @property
    def manifest(self) -> Path:
        """Digests of everything; its presence means that the job is complete."""
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        """Held by the driver that executes the job."""
        return self.root / ".job.lock"

    def part(self, part: Part) -> Path:
        """Return the file of a part."""
        return self.root / f"{part.name}.{self.format}"

    def claim(self, job: Mapping[str, Any], *, field: str = "output.folder") -> None:
        """Say what the folder is for, or check that it is for just that.

        Raises:
            SettingsError: the folder cannot be written.
            UserError: it holds another job's output, or files of somebody else.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            found = [path.name for path in self.root.iterdir() if path != self.lock]
        except OSError as problem:
            raise SettingsError(
                f"cannot write here: {problem.strerror}", field=field, got=str(self.root)
            ) from None
        if self.job.exists():
            before = json.loads(self.job.read_text(encoding="utf-8"))
            differs = sorted(key for key in job if before.get(key) != job[key])
            if differs:
                raise UserError(
                    f"the folder holds predictions of another job: {', '.join(differs)} differ",
                    field=field,
                    got=str(self.root),
                    hint="name another folder, or delete this one",
                )
        elif found:
            raise UserError(
                "the folder is not empty",
                field=field,
                got=f"{self.root}: {', '.join(sorted(found)[:3])}",
                hint="name a new folder: its files are the result, and nothing else",
            )
        else:
            write_json(self.job, job)
        for leftover in self.root.glob(f".*{_TEMPORARY}"):
            leftover.unlink(missing_ok=True)

    def write(self, part: Part, tables: Iterator[pa.Table]) -> WrittenPart:
        """Write the predictions of a part, whole or not at all."""
        temporary = self.root / f".{part.name}.{uuid.uuid4().hex}{_TEMPORARY}"
        try:
            if self.format == "parquet":
                _write_parquet(temporary, tables)
            else:
                _write_json_lines(temporary, tables)
            _to_disk(temporary)
            temporary.replace(self.part(part))
            _to_disk(self.root)
        finally:
            temporary.unlink(missing_ok=True)
        return self.describe(part)

    def describe(self, part: Part) -> WrittenPart:
        """Read a finished part again, for the manifest."""
        path = self.part(part)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_rows, num_bad = (_count_parquet if self.format == "parquet" else _count_lines)(path)
        return WrittenPart(path.name, digest, path.stat().st_size, num_rows, num_bad)


def pending(folder: OutputFolder, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that are not finished."""
    return [part for part in parts if not folder.part(part).exists()]


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    from pyarrow import parquet

    first = next(tables)
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _write_json_lines(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for table in tables:
            for row in table.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _count_parquet(path: Path) -> tuple[int, int]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        name = next(name for name in ANSWERS if name in file.schema_arrow.names)
        column = file.read(columns=[name]).column(name)
    return len(column), int(column.null_count)


def _count_lines(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        rows = [json.loads(line) for line in file]
    answers = [next(row[name] for name in ANSWERS if name in row) for row in rows]
    return len(answers), answers.count(None)
