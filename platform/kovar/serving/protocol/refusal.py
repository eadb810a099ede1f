"""What is wrong with a request: every mistake names its field and never repeats what was sent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from kovar.config import Config, FieldPath, dotted
from kovar.errors import RequestError
from kovar.inference import Text
from kovar.serving.spec import RequestLimits

RequestT = TypeVar("RequestT", bound=BaseModel)


class ErrorResponse(Config):
    """Body of every refusal."""

    error: str = Field(description="what is wrong and what is allowed")
    code: str = Field(description="short name of the refusal, for programs")
    field: str | None = Field(description="the field at fault")
    hint: str | None = Field(default=None, description="what to do next; absent where unknown")


def parse_request(kind: type[RequestT], body: bytes) -> RequestT:
    """Read a JSON body.

    Raises:
        RequestError: 400 the body is not JSON (NaN is not JSON) or nests deeper than 200 levels,
            the parser's limit; 422 it has other fields or types.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as problem:
        # The parser names a position and never quotes the body.
        raise RequestError(
            f"the body is not valid JSON: {problem}", status=400, code="invalid_json"
        ) from None
    try:
        return kind.model_validate(value)
    except ValidationError as problem:
        raise _refusal(kind, problem) from None


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def _refusal(kind: type[BaseModel], problem: ValidationError) -> RequestError:
    """Describe the first mistake by its place and kind; pydantic's own text may quote the input."""
    errors = problem.errors(include_url=False, include_input=False, include_context=False)
    item = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    path = _plain(item["loc"])
    match item["type"]:
        case "extra_forbidden":
            return RequestError("unknown field", code="unknown_field", field=dotted(path) or None)
        case "missing":
            return RequestError("this field is required", code="missing_field", field=dotted(path))
        case "model_type":
            allowed = ", ".join(kind.model_fields) if not path else "its fields"
            return RequestError(
                f"expected a JSON object with {allowed}",
                code="wrong_type",
                field=dotted(path) or None,
            )
        case "string_too_long" | "too_long":
            return too_long(dotted(path))
        case other:
            return wrong_type(dotted(path), expected=_EXPECTED.get(other, "another type"))


def _plain(path: FieldPath) -> FieldPath:
    """Return a path up to the first name that may be anything, such as a text."""
    return tuple(itertools.takewhile(_is_plain, path))


def _is_plain(part: str | int) -> bool:
    return isinstance(part, int) or _PLAIN_NAME.fullmatch(part) is not None


_EXPECTED: Final = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "int_type": "an integer",
    "bool_type": "true or false",
    "literal_error": "one of the allowed values",
    "finite_number": "a finite number",
}


def wrong_type(field: str, *, expected: str) -> RequestError:
    """Build (not raise) the refusal of a value of another type."""
    return RequestError(f"wrong type: expected {expected}", code="wrong_type", field=field)


def too_long(field: str) -> RequestError:
    """Build (not raise) the refusal of a name or an id that is too long."""
    return RequestError("too long", code="too_long", field=field)


def check_count(number: int, limits: RequestLimits, *, field: str) -> None:
    """Refuse a request with no text or too many.

    Raises:
        RequestError: 422, naming the field.
    """
    if not number:
        raise RequestError("at least one text is needed", code="inputs_empty", field=field)
    if number > limits.max_inputs:
        raise RequestError(
            f"too many texts, at most {limits.max_inputs} are allowed in one request",
            code="too_many_inputs",
            field=field,
        )


def check_texts(texts: Sequence[Text], limits: RequestLimits, *, field: str = "inputs") -> None:
    """Refuse texts before they are tokenized.

    Raises:
        RequestError: 422 no texts, too many, an empty one or one that is too long.
    """
    check_count(len(texts), limits, field=field)
    for index, text in enumerate(texts):
        for part in (text,) if isinstance(text, str) else text:
            if len(part) > limits.max_text_characters:
                raise RequestError(
                    f"{len(part)} characters, at most {limits.max_text_characters} are allowed",
                    code="text_too_long",
                    field=f"{field}[{index}]",
                )
            if not part or part.isspace():
                raise RequestError(
                    "the text is empty", code="text_empty", field=f"{field}[{index}]"
                )


def too_many_tokens(index: int, max_length: int) -> RequestError:
    """Build (not raise) the refusal of a text that would be truncated."""
    return RequestError(
        f"more than the {max_length} tokens that the model reads",
        code="too_many_tokens",
        field=f"inputs[{index}]",
        hint="send less of it, or allow truncation",
    )


_ANSWERED: Final = re.compile(r"inputs\[(\d+)\]")


@contextmanager
def text_fields(pattern: str) -> Iterator[None]:
    """Name the text at fault as the caller's own protocol does.

    What answers texts knows of each its place among them alone, and calls them `inputs[0]`, ….

    Args:
        pattern: field of a text, with `{index}` where its place stands.

    Raises:
        RequestError: what is raised within, with the field of the pattern.
    """
    try:
        yield
    except RequestError as error:
        found = _ANSWERED.fullmatch(error.field or "")
        if found:
            error.field = pattern.format(index=found[1])
        raise
