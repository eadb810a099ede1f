"""Checkpoints that are whole or absent: safetensors and JSON, digests, atomic rename.

A checkpoint is a folder `step-00000100/` with `model.safetensors`, `optimizer.safetensors`,
`state.json` and `manifest.json`. The manifest is written last and lists size and SHA-256 of the
others; the folder gets its final name only when everything is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import RunError

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"^step-(\d{8})$")
_MANIFEST = "manifest.json"

State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that verified when it was found."""

    step: int
    folder: Path
    ignored: tuple[str, ...] = ()

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], State]:
        """Return the model's tensors, the optimizer's tensors and the state."""
        from safetensors.torch import load_file

        state: State = json.loads((self.folder / "state.json").read_text())
        return (
            load_file(self.folder / "model.safetensors"),
            load_file(self.folder / "optimizer.safetensors"),
            state,
        )


class CheckpointFolder:
    """All checkpoints of one run.

    Args:
        root: the run's `checkpoints` folder.
        keep: number of newest checkpoints kept.
    """

    def __init__(self, root: Path, *, keep: int) -> None:
        self.root = root
        self.keep = keep

    def save(
        self,
        step: int,
        *,
        model: dict[str, torch.Tensor],
        optimizer: dict[str, torch.Tensor],
        state: State,
        pinned: int | None = None,
    ) -> Path:
        """Write one checkpoint and drop the oldest; on return it survives a power cut.

        Args:
            step: counts from 1.
            model: its tensors.
            optimizer: tensors to go on from.
            state: everything else, as JSON types.
            pinned: a step whose checkpoint is kept however old it is.
        """
        from safetensors.torch import save_file

        final = self.root / f"step-{step:08d}"
        partial = self.root / f".partial-{step:08d}-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(model, partial / "model.safetensors")
        save_file(optimizer, partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step, **state}, sort_keys=True))
        files = {path.name: _facts(path) for path in sorted(partial.iterdir())}
        (partial / _MANIFEST).write_text(json.dumps({"v": 1, "step": step, "files": files}))
        for path in (*partial.iterdir(), partial):
            _fsync(path)
        if final.exists():  # left by an attempt that was overtaken: same step, same content
            shutil.rmtree(final)
        partial.rename(final)
        _fsync(self.root)
        for old in self._steps()[: -self.keep]:
            if old == pinned:
                continue
            shutil.rmtree(self.root / f"step-{old:08d}")
        return final

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, with what was wrong with newer ones.

        Leftovers of interrupted writes, and newer checkpoints that do not verify, are removed.
        """
        ignored: list[str] = []
        for leftover in self.root.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for step in reversed(self._steps()):
            folder = self.root / f"step-{step:08d}"
            problem = _problem(folder)
            if problem is None:
                # They would count among the newest that are kept, in place of good ones.
                for reason in ignored:
                    shutil.rmtree(self.root / reason.partition(":")[0])
                return Checkpoint(step, folder, tuple(ignored))
            ignored.append(f"{folder.name}: {problem}")
        return None

    def verified(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step.

        Raises:
            RunError: it is gone or damaged.
        """
        found = self.at(step)
        if problem := _problem(found.folder):
            raise RunError(
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


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "size_bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _problem(folder: Path) -> str | None:
    try:
        files = json.loads((folder / _MANIFEST).read_text())["files"]
        for name, facts in files.items():
            if _facts(folder / name) != facts:
                return f"{name} does not match its digest"
    except (OSError, ValueError, KeyError, AttributeError) as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
