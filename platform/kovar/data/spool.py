"""Rows that are kept in memory while they are few, and in a nameless file when they are many."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa

from kovar.errors import SettingsError
from kovar.settings import ensure_writable

SPOOL_BYTES: Final = 64 << 20
"""Tables up to this size stay in memory."""


class Spool:
    """Tables of one schema, written once and read as often as needed, in the order of writing.

    The file never has a name, so it goes with the process, however that ends.

    Args:
        folder: where the file lies when one is needed; made when it is missing.
        limit_bytes: more than this goes to the file.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = SPOOL_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._tables: list[pa.Table] = []
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self.num_rows = 0

    @property
    def in_memory(self) -> bool:
        """Whether the rows are few enough to be in memory."""
        return self._file is None

    def append(self, table: pa.Table) -> None:
        """Add rows at the end.

        Raises:
            SettingsError: the file cannot be written.
        """
        self.num_rows += table.num_rows
        self._tables.append(table)
        if self.in_memory and sum(each.nbytes for each in self._tables) <= self._limit_bytes:
            return
        try:
            self._write()
        except OSError as problem:
            raise SettingsError(
                f"the rows cannot be spooled: {problem.strerror or problem}",
                field="cache_dir",
                got=str(self._folder),
                hint="free some space, or set KOVAR_CACHE_DIR to a folder with more of it",
            ) from problem

    def _write(self) -> None:
        if self._file is None:
            ensure_writable(self._folder, field="cache_dir")
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            # Its space comes back when nobody reads the rows any more.
            weakref.finalize(self, self._file.close)
            self._writer = pa.ipc.new_file(self._file, self._tables[0].schema)
        for table in self._tables:
            self._writer.write_table(table.combine_chunks())
        self._tables.clear()

    def finish(self) -> None:
        """End writing; the rows can be read from here on."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __iter__(self) -> Iterator[pa.Table]:
        yield from self._tables
        if self._file is not None:
            # Read rather than mapped: mapped pages would count as this process's memory.
            reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])
