"""Every error that Kovar raises on purpose.

KovarError                       exit code 1: the work failed
├── UserError                    exit code 2: the user can fix it by changing an input
│   ├── SpecError                a YAML file or a field of it
│   ├── SettingsError            a setting, its environment variable or its file
│   ├── DataError                a data set: missing, empty, wrong columns, bad values
│   ├── ModelError               a base model: unknown, damaged, unsupported
│   ├── PlacementError           no declared node can hold the request
│   │   └── UndecidedError       whether nodes can hold it took more work to tell than is allowed
│   ├── NotFoundError            a model, version, alias or run that does not exist
│   └── MissingExtraError        an optional dependency, with the pip command that installs it
├── RegistryError                the registry refused or could not finish
│   ├── GateError                a gate of a protected alias refused a promotion
│   ├── ConflictError            a compare-and-swap lost: the alias moved meanwhile
│   ├── DamagedArtifactError     a blob is missing, truncated or altered
│   ├── UnsafeArtifactError      a file that may not enter the registry (pickle, symbolic link, …)
│   ├── UntrustedVersionError    no trusted key has signed the version, or attests its export
│   └── NewerSchemaError         the database was written by a newer Kovar
├── RunError                     a training run, sweep or evaluation failed
│   ├── NonFiniteError           the loss or a gradient is NaN or infinite
│   ├── OutOfMemoryError         not even one row passes through the model
│   ├── CheckpointError          a checkpoint could not be written, or is damaged
│   ├── PreemptedError           the machine goes away; a checkpoint was saved before
│   └── SupersededError          a later attempt took this one's place; its writes are refused
├── GoldenError                  a runtime does not reproduce a version's golden examples
└── RequestError                 one HTTP request was refused; carries the HTTP status

All of them survive pickling, so a worker's error reaches the driver with its fields.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class KovarError(Exception):
    """Base of the tree. `hint` says what to do next; it is part of `str(error)`."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.context)

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


def _rebuild(
    kind: type[KovarError], message: str, hint: str | None, context: dict[str, Any]
) -> KovarError:
    return kind(message, hint=hint, **context)


class UserError(KovarError):
    """An input is wrong. The message names where, what was got and what is allowed.

    Args:
        message: what is wrong, in one line.
        file: the file that holds the mistake.
        line: its 1-based line.
        field: dotted path of the field, for example `training.learning_rate`.
        got: the value that was found.
        allowed: what would be accepted, as text.
        hint: what to do next.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        got: object = None,
        allowed: str | None = None,
        hint: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(
            message,
            hint=hint,
            file=str(file) if file is not None else None,
            line=line,
            field=field,
            got=_shown(got) if got is not None else None,
            allowed=allowed,
            **context,
        )

    @property
    def field(self) -> str | None:
        """Dotted path of the field at fault, if there is one."""
        field: str | None = self.context["field"]
        return field

    def __str__(self) -> str:
        file, line, field = (self.context[key] for key in ("file", "line", "field"))
        where = f"{file}:{line}" if file and line else file
        head = ": ".join(part for part in (where, field, self.message) if part)
        details = [
            f"  {key}: {self.context[key]}" for key in ("got", "allowed") if self.context[key]
        ]
        return "\n".join([head, *details, *([f"  → {self.hint}"] if self.hint else [])])


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"


def did_you_mean(got: str, known: list[str]) -> str | None:
    """Return `did you mean "…"?` for the nearest spelling in `known`, or None."""
    near = get_close_matches(got, known, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else None


class SpecError(UserError):
    """A YAML file or a field of it."""


class SettingsError(UserError):
    """A setting, its environment variable or its file."""


class DataError(UserError):
    """A data set: missing, empty, wrong columns, bad values."""


class ModelError(UserError):
    """A base model: unknown, damaged, unsupported."""


class PlacementError(UserError):
    """No declared node can hold the request."""


class UndecidedError(PlacementError):
    """The planner's bound was spent before a place was found, or proven not to be there."""


class NotFoundError(UserError):
    """A model, version, alias or run that does not exist."""


class MissingExtraError(UserError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, extra: str, *, needed_for: str) -> MissingExtraError:
        """Build the error for one extra, with the command that installs it."""
        return cls(
            f"{needed_for} needs the optional extra {extra!r}",
            hint=f'pip install "kovar-platform[{extra}]"',
        )


class RegistryError(KovarError):
    """The registry refused or could not finish."""


class GateError(RegistryError):
    """A gate of a protected alias refused a promotion."""


class ConflictError(RegistryError):
    """A compare-and-swap lost: the alias moved meanwhile."""


class DamagedArtifactError(RegistryError):
    """A blob is missing, truncated or altered."""


class UnsafeArtifactError(RegistryError):
    """A file that may not enter the registry: pickle, symbolic link, path outside the version."""


class UntrustedVersionError(RegistryError):
    """No trusted key has signed the version or what is derived from it, or it did so wrongly."""


class NewerSchemaError(RegistryError):
    """The database was written by a newer Kovar."""


class RunError(KovarError):
    """A training run, sweep or evaluation failed."""


class NonFiniteError(RunError):
    """The loss or a gradient is NaN or infinite."""


class OutOfMemoryError(RunError):
    """Not even one row passes through the model in the memory that a worker has."""


class CheckpointError(RunError):
    """A checkpoint could not be written, or cannot be used."""


class PreemptedError(RunError):
    """The machine goes away; everything up to the last step is in a checkpoint."""


class SupersededError(RunError):
    """A later start of a run's workers took this one's place; its writes are refused."""


class GoldenError(KovarError):
    """A runtime does not reproduce a version's golden examples."""


class RequestError(KovarError):
    """One HTTP request was refused.

    Args:
        message: what is wrong, without the user's text.
        status: HTTP status code.
        code: short machine-readable name of the refusal, for example `text_too_long`.
        field: path of the field at fault, for example `inputs[3]`.
        retry_after_s: seconds after which the same request may be answered, where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 422,
        code: str = "invalid",
        field: str | None = None,
        retry_after_s: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(
            message, hint=hint, status=status, code=code, field=field, retry_after_s=retry_after_s
        )
        self.status = status
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s


def exit_code_of(action: Callable[[], int]) -> int:
    """Run an entry point; turn Kovar's errors into a message on standard error and a code.

    Returns:
        What `action` returned; 2 for a user's mistake; 1 for a failed run; 130 after Ctrl-C.
    """
    try:
        return action()
    except KovarError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
