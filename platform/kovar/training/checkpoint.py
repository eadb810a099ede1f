"""Checkpoints that are whole or absent: parts of all ranks, digests, atomic rename.

A checkpoint is a folder `step-00000100/`. Each rank that has a part writes its files into
`.partial-00000100-ATTEMPT/` and, when they are on the disk, a list of them with size and SHA-256.
Rank 0 waits for every list, joins them in `manifest.json`, and gives the folder its name. Without
sharding there is one part: `model.safetensors`, `optimizer.safetensors` and `state.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from kovar.errors import CheckpointError, SupersededError

if TYPE_CHECKING:
    import torch

    from kovar.training.attempt import Attempt
    from kovar.training.mirror import Mirror

_NAME = re.compile(r"^step-(\d{8})$")
_MANIFEST: Final = "manifest.json"
_DROPPED: Final = ".dropped-"

PARTS_TIMEOUT_S: Final = 600.0
"""A rank that has not written its part by then is taken for lost."""

_POLL_S: Final = 0.02

State = dict[str, Any]


class Part(Protocol):
    """What one rank adds to a checkpoint."""

    @property
    def step(self) -> int:
        """The step after which it was taken."""

    def write(self, folder: Path) -> Sequence[str]:
        """Write files into the folder that all ranks share; return their names.

        Names are unlike those of the other ranks. It is called in a thread beside training.
        """


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that survives a power cut.

    Args:
        step: after which it was taken.
        folder: where it lies.
        size_bytes: of all its files.
        pinned: folder of an older one, of the best step, that it is of no use without.
    """

    step: int
    folder: Path
    size_bytes: int
    pinned: Path | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that verified when it was found."""

    step: int
    folder: Path
    ignored: tuple[str, ...] = ()

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], State]:
        """Return the model's tensors, the optimizer's tensors and the state."""
        from safetensors.torch import load_file

        return (
            load_file(self.folder / "model.safetensors"),
            load_file(self.folder / "optimizer.safetensors"),
            self.state(),
        )

    def state(self) -> State:
        """Return what is not tensors."""
        state: State = json.loads((self.folder / "state.json").read_text())
        return state


class CheckpointFolder:
    """All checkpoints of one run.

    Args:
        root: the run's `checkpoints` folder.
        keep: number of newest checkpoints kept.
        attempt: this start of the workers; unless it is the newest one, nothing is written.
        mirror: where copies go, and where one comes from when this folder has none.
        durable: whether a checkpoint survives a power cut; without, one that a power cut tears
            does not verify, and the one before it is taken.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep: int,
        attempt: Attempt | None = None,
        mirror: Mirror | None = None,
        durable: bool = True,
    ) -> None:
        self.root = root
        self.keep = keep
        self.attempt = attempt
        self.mirror = mirror
        self._sync = _fsync if durable else _leave

    def save(
        self, part: Part, *, rank: int = 0, num_parts: int = 1, pinned: int | None = None
    ) -> SavedCheckpoint | None:
        """Write this rank's part; on rank 0 wait for the others and finish the checkpoint.

        Args:
            part: this rank's.
            rank: from 0; ranks from `num_parts` on have no part and do not call this.
            num_parts: ranks that write one.
            pinned: a step whose checkpoint is kept however old it is.

        Returns:
            On rank 0 the checkpoint, which now survives what `durable` says; None elsewhere.

        Raises:
            CheckpointError: the disk refused, or another rank's part did not come.
            SupersededError: a later attempt took this one's place.
        """
        number = self.attempt.number if self.attempt else 0
        partial = self.root / f".partial-{part.step:08d}-{number}"
        try:
            self._check()
            partial.mkdir(parents=True, exist_ok=True)
            self._write_part(part, partial, rank)
            if rank != 0:
                return None
            saved = self._finish(part.step, partial, num_parts)
            if pinned is not None and pinned < part.step:
                saved = replace(saved, pinned=self.at(pinned).folder)
            self._prune(pinned)
        except SupersededError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {part.step} could not be written: {error}",
                hint=f"make room in {self.root} and submit the run again: it goes on from the "
                "checkpoint before",
            ) from error
        return saved

    def _write_part(self, part: Part, partial: Path, rank: int) -> None:
        names = part.write(partial)
        files = {name: _facts(partial / name) for name in sorted(names)}
        for name in files:
            self._sync(partial / name)
        listed = partial / _part_list(rank)
        waiting = listed.with_suffix(".writing")
        waiting.write_text(json.dumps(files))
        self._sync(waiting)
        waiting.replace(listed)

    def _finish(self, step: int, partial: Path, num_parts: int) -> SavedCheckpoint:
        lists = [partial / _part_list(rank) for rank in range(num_parts)]
        self._await(lists, step)
        files: dict[str, Any] = {}
        for listed in lists:
            files |= json.loads(listed.read_text())
            listed.unlink()
        manifest = partial / _MANIFEST
        manifest.write_text(json.dumps({"v": 1, "sha256": _digest(step, files), "files": files}))
        self._sync(manifest)
        self._sync(partial)
        # A later attempt removes what it finds unfinished before it looks for a checkpoint, so a
        # look here is enough: whoever is replaced in the next moment finds nothing to rename.
        self._check()
        final = self.at(step).folder
        if final.exists():  # left by an attempt that was overtaken: same step, same content
            self._drop([final])
        size = sum(facts["size_bytes"] for facts in files.values()) + manifest.stat().st_size
        partial.rename(final)
        self._sync(self.root)
        return SavedCheckpoint(step, final, size)

    def _await(self, lists: Sequence[Path], step: int) -> None:
        deadline = time.monotonic() + PARTS_TIMEOUT_S
        while missing := [path for path in lists if not path.exists()]:
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"the checkpoint of step {step} lacks {len(missing)} of {len(lists)} parts "
                    f"after {PARTS_TIMEOUT_S:.0f} s: {missing[0].name} among them",
                    hint="see the event log for the rank that was lost",
                )
            time.sleep(_POLL_S)

    def _check(self) -> None:
        if self.attempt is not None:
            self.attempt.check()

    def _prune(self, pinned: int | None) -> None:
        self._check()
        old = [step for step in self._steps()[: -self.keep] if step != pinned]
        self._drop(self.at(step).folder for step in old)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, with what was wrong with newer ones.

        Leftovers of interrupted writes, and newer checkpoints that do not verify, are removed.
        Where none is left, the copies of the mirror are fetched.

        Raises:
            CheckpointError: the mirror cannot be read.
        """
        found = self._newest()
        if found is not None or self.mirror is None:
            return found
        try:
            was_there = self.mirror.restore(self.root)
        except OSError as problem:
            raise CheckpointError(
                f"the mirror of checkpoints cannot be read: {problem}",
                hint="unset checkpoint_mirror to train from the beginning",
                of_one_rank=True,
            ) from problem
        return self._newest() if was_there else None

    def _newest(self) -> Checkpoint | None:
        self._drop([*self.root.glob(".partial-*"), *self.root.glob(f"{_DROPPED}*")])
        ignored: list[str] = []
        for step in reversed(self._steps()):
            found = self.at(step)
            problem = _problem(found)
            if problem is None:
                # They would count among the newest that are kept, in place of good ones.
                self._drop(self.root / reason.partition(":")[0] for reason in ignored)
                return Checkpoint(step, found.folder, tuple(ignored))
            ignored.append(f"{found.folder.name}: {problem}")
        return None

    def verified(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step.

        Raises:
            CheckpointError: it is gone or damaged.
        """
        found = self.at(step)
        if problem := _problem(found):
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be used: {problem}",
                hint=f"remove {self.root} and submit the run again",
            )
        return found

    def at(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step that another rank has verified."""
        return Checkpoint(step, self.root / f"step-{step:08d}")

    def _steps(self) -> list[int]:
        names = (_NAME.match(path.name) for path in self.root.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def _drop(self, folders: Iterable[Path]) -> None:
        """Remove folders, each at one stroke for whoever looks at the same moment."""
        for folder in folders:
            dropped = folder
            if not folder.name.startswith(_DROPPED):
                dropped = folder.with_name(f"{_DROPPED}{folder.name.lstrip('.')}-{os.getpid()}")
                shutil.rmtree(dropped, ignore_errors=True)
                folder.rename(dropped)
            shutil.rmtree(dropped, ignore_errors=True)


def _part_list(rank: int) -> str:
    return f".part-{rank}.json"


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "size_bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _digest(step: int, files: dict[str, Any]) -> str:
    """Return what a manifest says of itself, so that it cannot list too little."""
    return hashlib.sha256(json.dumps([step, files], sort_keys=True).encode()).hexdigest()


def _problem(checkpoint: Checkpoint) -> str | None:
    folder = checkpoint.folder
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        files = manifest["files"]
        if manifest["sha256"] != _digest(checkpoint.step, files):
            return f"{_MANIFEST} does not match its digest"
        for name, facts in files.items():
            if _facts(folder / name) != facts:
                return f"{name} does not match its digest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


def _leave(path: Path) -> None:
    """Leave a file to the system, which writes it when it suits it."""


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
