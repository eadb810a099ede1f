"""Cache folders that appear whole or not at all, built by one process at a time.

A folder is built under a temporary name, its `meta.json` is written last, everything is flushed,
and one rename publishes it. A folder whose meta file is missing or disagrees with the files is
damaged: it is built again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from kovar.errors import SettingsError
from kovar.settings import ensure_writable

META = "meta.json"
logger = logging.getLogger("kovar.data")


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the folder's meta data after comparing the size of every file with it.

    Raises:
        ValueError: the folder is damaged; says why.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        sizes: dict[str, int] = meta["files"]
    except FileNotFoundError:
        raise ValueError(f"{META} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{META} is damaged") from None
    for name, size_bytes in sizes.items():
        path = folder / name
        actual = path.stat().st_size if path.is_file() else None
        if actual != size_bytes:
            found = "missing" if actual is None else f"{actual:,} bytes"
            raise ValueError(f"{name} is {found} instead of {size_bytes:,} bytes")
    return meta


def ensure_folder(
    folder: Path,
    *,
    build: Callable[[Path], dict[str, Any]],
    check: Callable[[Path], object] = read_meta,
) -> bool:
    """Make sure that `folder` is there and whole.

    Args:
        folder: the final name.
        build: fills an empty folder and returns the meta data to store with it.
        check: raises ValueError when the folder is damaged.

    Returns:
        True if the folder was there already.

    Raises:
        SettingsError: the cache cannot be written.
    """
    if folder.is_dir() and _reason(folder, check) is None:
        return True
    root = ensure_writable(folder.parent, field="cache_dir")
    with FileLock(root / f"{folder.name}.lock"):
        if folder.is_dir():
            reason = _reason(folder, check)
            if reason is None:
                return True
            logger.warning("rebuilding the cache folder %s: %s", folder, reason)
        for leftover in root.glob(f".{folder.name}.*"):
            # Only the holder of the lock builds: these belong to a process that was killed.
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
        try:
            _build(scratch, folder, build)
        except OSError as problem:
            raise SettingsError(
                f"cannot write the cache: {problem.strerror}",
                field="cache_dir",
                got=str(folder),
                hint="free some space, or set KOVAR_CACHE_DIR to a folder with more of it",
            ) from problem
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return False


def _reason(folder: Path, check: Callable[[Path], object]) -> str | None:
    try:
        check(folder)
    except ValueError as problem:
        return str(problem)
    return None


def _build(scratch: Path, folder: Path, build: Callable[[Path], dict[str, Any]]) -> None:
    content = scratch / "content"
    content.mkdir()
    meta = build(content)
    sizes = {path.name: path.stat().st_size for path in sorted(content.iterdir())}
    text = json.dumps({**meta, "files": sizes}, indent=2, ensure_ascii=False)
    (content / META).write_text(text + "\n", encoding="utf-8")
    for path in (*content.iterdir(), content):
        _flush(path)
    shutil.rmtree(folder, ignore_errors=True)
    content.rename(folder)
    _flush(folder.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
