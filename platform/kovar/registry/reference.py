"""Names and references: `movie-sentiment`, `movie-sentiment@champion`, `@3`, `@9f2c41d0`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kovar.errors import UserError

DEFAULT_ALIAS: Final = "champion"
MIN_DIGEST_CHARS: Final = 8
MAX_NAME_CHARS: Final = 128

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]{1,7}")
_DIGEST = re.compile(rf"[0-9a-f]{{{MIN_DIGEST_CHARS},64}}")


class Reference(NamedTuple):
    """What a reference names: exactly one of the three is set."""

    number: int | None = None
    digest: str | None = None
    alias: str | None = None


def parse_reference(text: str | int) -> Reference:
    """Tell a number, a digest (its first 8 or more digits) and an alias apart.

    Raises:
        UserError: none of the three.
    """
    if isinstance(text, int):
        return Reference(number=text)
    if _NUMBER.fullmatch(text):
        return Reference(number=int(text))
    if is_digest(text):
        return Reference(digest=text)
    return Reference(alias=check_name(text, field="alias"))


def is_digest(text: str) -> bool:
    """Whether the text can be (the start of) a digest; no name can."""
    return _DIGEST.fullmatch(text) is not None


def check_name(name: str, *, field: str) -> str:
    """Return a valid name of a model or an alias.

    Args:
        name: the name.
        field: `model` or `alias`, for the message.

    Raises:
        UserError: other characters, too long, or it could be taken for a number or a digest.
    """
    if _NUMBER.fullmatch(name) or is_digest(name):
        raise UserError(
            f"the name of the {field} could be taken for a version's number or digest",
            field=field,
            got=name,
            hint=f'add a word, for example "{field}-{name[:12]}"',
        )
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise UserError(
            f"not a valid name for the {field}",
            field=field,
            got=name,
            allowed=f"lowercase letters, digits, '-', '_' and '.'; a letter or digit first and "
            f"last; at most {MAX_NAME_CHARS} characters",
            hint=_suggestion(name),
        )
    return name


def _suggestion(name: str) -> str | None:
    near = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")[:MAX_NAME_CHARS]
    return f'for example "{near}"' if near and near != name else None
