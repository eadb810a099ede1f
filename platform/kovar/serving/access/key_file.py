"""The file of API keys: JSON that is replaced as a whole, one writer at a time."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from kovar.config import Config
from kovar.errors import NotFoundError, SettingsError, did_you_mean
from kovar.serving.access.key import ApiKey

MAX_FILE_BYTES = 16 << 20


class KeyDocument(Config):
    """The content of the file."""

    format: Literal["kovar-api-keys/1"] = "kovar-api-keys/1"
    keys: tuple[ApiKey, ...] = Field(default=(), description="every key that was ever made")

    @model_validator(mode="after")
    def _an_id_names_one_key(self) -> Self:
        ids = [key.id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError("two keys have the same id")
        return self


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read the keys of a file.

    Raises:
        SettingsError: it is missing, unreadable, damaged, or others than its owner may write it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        raise SettingsError(
            f"cannot read the API keys: {problem.strerror}",
            file=path,
            hint="make the file with: kovar keys create NAME --file FILE",
        ) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(
            "others than the owner may write this file, and so may let themselves in",
            file=path,
            got=f"mode {stat.S_IMODE(mode):04o}",
            allowed="mode 0600",
            hint=f"chmod 600 {path}",
        )
    try:
        return KeyDocument.model_validate_json(content).keys
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        raise SettingsError(
            f"not a file of API keys: {first['msg']}",
            file=path,
            field=".".join(str(part) for part in first["loc"]) or None,
            hint="keep it as `kovar keys` wrote it",
        ) from None


def add_key(path: Path, key: ApiKey) -> None:
    """Add a key; the file is made when it is absent.

    Raises:
        SettingsError: the file is damaged, or cannot be written.
    """
    with _rewriting(path, create=True) as rewrite:
        rewrite(lambda keys: (*keys, key))


def replace_key(path: Path, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
    """Change one key.

    Raises:
        NotFoundError: no key has this id.
        SettingsError: the file is missing or damaged, or cannot be written.
    """
    with _rewriting(path) as rewrite:
        changed = change(find_key(read_keys(path), key_id))
        rewrite(lambda keys: tuple(changed if key.id == key_id else key for key in keys))
    return changed


def replace_by(path: Path, key_id: str, successor: ApiKey, *, until: datetime) -> ApiKey:
    """Add the successor of a key and let the old one end, in one step.

    Returns:
        The old key, as it is now.

    Raises:
        NotFoundError: no key has this id.
    """
    with _rewriting(path) as rewrite:
        old = find_key(read_keys(path), key_id)
        end = until if old.expires_at is None else min(until, old.expires_at)
        ending = old.model_copy(update={"expires_at": end})
        rewrite(lambda keys: (*(ending if key.id == key_id else key for key in keys), successor))
    return ending


def find_key(keys: tuple[ApiKey, ...], key_id: str) -> ApiKey:
    """Return the key with an id.

    Raises:
        NotFoundError: none has it; it names the nearest.
    """
    for key in keys:
        if key.id == key_id:
            return key
    raise NotFoundError(
        "no such API key",
        field="id",
        got=key_id,
        hint=did_you_mean(key_id, [key.id for key in keys]) or "kovar keys list shows the ids",
    )


Rewrite = Callable[[Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]], None]


@contextmanager
def _rewriting(path: Path, *, create: bool = False) -> Iterator[Rewrite]:
    """Hold the file's lock; the function given out replaces the file's content as a whole."""
    from filelock import FileLock

    def rewrite(change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> None:
        keys = read_keys(path) if path.exists() or not create else ()
        _replace(path, KeyDocument(keys=change(keys)))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), mode=0o600):
            yield rewrite
    except OSError as problem:
        raise SettingsError(f"cannot write the API keys: {problem.strerror}", file=path) from None


def _replace(path: Path, document: KeyDocument) -> None:
    # mkstemp makes the file with mode 0600: at no moment can others read it.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(document.model_dump_json(indent=1, exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
