"""Copies of checkpoints in remote storage, for when the run's folder is lost with its machine.

A copy is whole once its manifest is there, which is sent last. Copying goes on beside training and
never holds it up: while one checkpoint travels, only the newest one after it waits.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.registry.artifacts import open_filesystem

if TYPE_CHECKING:
    from kovar.training.checkpoint import SavedCheckpoint

_MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"step-\d{8}")
_CHUNK_BYTES: Final = 8 << 20


class Mirror:
    """The copies of one run.

    Args:
        filesystem: a `pyarrow.fs.FileSystem`.
        base: the run's folder in it.
    """

    def __init__(self, filesystem: Any, base: str) -> None:
        self._filesystem = filesystem
        self._base = base.rstrip("/")

    @classmethod
    def open(cls, root: str, run: str) -> Mirror:
        """Open the copies of a run below a folder or a URL that Arrow knows.

        Raises:
            SettingsError: an unknown scheme, a malformed URL, or a driver that is not installed.
        """
        if "://" not in root:
            from pyarrow import fs

            return cls(fs.LocalFileSystem(), str(Path(root) / run))
        filesystem, base = open_filesystem(
            root, what="the mirror of checkpoints", field="checkpoint_mirror"
        )
        return cls(filesystem, f"{base.rstrip('/')}/{run}")

    def send(self, saved: SavedCheckpoint) -> None:
        """Copy a checkpoint, and drop older copies but the last one and the one that it needs.

        Raises:
            OSError: the storage refused, or the checkpoint is gone from the run's folder.
        """
        name, pinned = saved.folder.name, saved.pinned and saved.pinned.name
        if saved.pinned is not None and pinned not in self._copies():
            self._copy(saved.pinned)
        self._copy(saved.folder)
        for old in [each for each in self._copies() if each < name and each != pinned][:-1]:
            self._filesystem.delete_dir(f"{self._base}/{old}")

    def _copy(self, folder: Path) -> None:
        target = f"{self._base}/{folder.name}"
        self._filesystem.create_dir(target, recursive=True)
        names = sorted(path.name for path in folder.iterdir() if path.name != _MANIFEST)
        with ExitStack() as opened:
            # All at once: what is open can be read to its end when newer ones replace it meanwhile.
            sources = {
                name: opened.enter_context((folder / name).open("rb"))
                for name in (*names, _MANIFEST)
            }
            for name, source in sources.items():
                with self._filesystem.open_output_stream(f"{target}/{name}") as stream:
                    while chunk := source.read(_CHUNK_BYTES):
                        stream.write(chunk)
                        # Arrow sends parts in the background and queues them without a bound.
                        stream.flush()

    def restore(self, root: Path) -> bool:
        """Fetch the whole copies into a run's folder, oldest first; return whether there was one.

        Whoever reads them there verifies them. The newest may need an older one: of the best step.

        Raises:
            OSError: the storage refused.
        """
        found = self._copies()
        for name in found:
            partial = root / f".partial-{name}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for file in (*self._files(name), _MANIFEST):
                with (
                    self._filesystem.open_input_stream(f"{self._base}/{name}/{file}") as source,
                    (partial / file).open("wb") as target,
                ):
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
            # Nothing in the folder verified: what bears this name is damaged.
            shutil.rmtree(root / name, ignore_errors=True)
            partial.rename(root / name)
        return bool(found)

    def remove(self) -> None:
        """Drop all copies: the run is registered."""
        from pyarrow import fs

        if self._filesystem.get_file_info(self._base).type != fs.FileType.NotFound:
            self._filesystem.delete_dir(self._base)

    def _files(self, name: str) -> list[str]:
        with self._filesystem.open_input_stream(f"{self._base}/{name}/{_MANIFEST}") as stream:
            return list(json.loads(stream.read())["files"])

    def _copies(self) -> list[str]:
        """Return the names of the whole copies, oldest first."""
        from pyarrow import fs

        chosen = fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        found = (Path(each.path) for each in self._filesystem.get_file_info(chosen))
        whole = {path.parent.name for path in found if path.name == _MANIFEST}
        return sorted(name for name in whole if _NAME.fullmatch(name))


@dataclass(frozen=True)
class Mirrored:
    """An answer of the storage.

    Args:
        step: of the checkpoint.
        seconds: that the copy took.
        error: why there is none; None for a whole copy.
    """

    step: int
    seconds: float
    error: str | None = None


class Uploads:
    """Sends checkpoints to a mirror, one at a time; a newer one replaces the one that waits."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kovar-mirror")
        self._under_way: Future[Mirrored] | None = None
        self._next: SavedCheckpoint | None = None

    def offer(self, saved: SavedCheckpoint) -> None:
        """Have a checkpoint sent, now or after the one that travels."""
        self._next = saved
        self._start()

    def answered(self, *, wait: bool = False) -> list[Mirrored]:
        """Return the answers since the last call; wait for all of them if asked to."""
        found = []
        while self._under_way is not None and (wait or self._under_way.done()):
            found.append(self._under_way.result())
            self._under_way = None
            self._start()
        return found

    def close(self) -> None:
        """Let the last one finish."""
        self._thread.shutdown()

    def _start(self) -> None:
        if self._under_way is None and self._next is not None:
            self._under_way = self._thread.submit(self._send, self._next)
            self._next = None

    def _send(self, saved: SavedCheckpoint) -> Mirrored:
        began = time.perf_counter()
        try:
            self._mirror.send(saved)
        except OSError as problem:  # training goes on without a copy, and says so
            return Mirrored(saved.step, time.perf_counter() - began, str(problem))
        return Mirrored(saved.step, time.perf_counter() - began)
