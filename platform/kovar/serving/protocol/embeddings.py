"""`POST /v1/embeddings` and `GET /v1/models` in the shape of OpenAI's API.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, WithJsonSchema

from kovar.config import Config
from kovar.errors import RequestError
from kovar.inference import Encoded, Text
from kovar.serving.protocol.refusal import check_count, check_texts, wrong_type
from kovar.serving.protocol.repository import Listed
from kovar.serving.protocol.served import ServedVersion
from kovar.serving.spec import RequestLimits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INPUT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}


class EmbeddingsRequest(Config):
    """Body of `POST /v1/embeddings`."""

    input: Annotated[Any, WithJsonSchema(INPUT_SCHEMA)] = Field(
        description="a text, texts, the token ids of a text, or those of several"
    )
    model: str | None = Field(
        default=None, description="one of the application's models; its first one if absent"
    )
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="numbers, or little-endian float32 in base64"
    )
    dimensions: int | None = Field(default=None, description="the model's own number, if given")
    truncate: bool | None = Field(default=None, description="as in /v1/predict")
    user: str | None = Field(default=None, max_length=256, description="not used")


class Embedding(Config):
    """The embedding of one text."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="place of the text in the request")
    embedding: list[float] | str = Field(description="mean of the tokens' last hidden states")
    truncated: bool | None = Field(
        default=None, description="true where only the beginning of the text was read, else absent"
    )


class EmbeddingsUsage(Config):
    """What the request cost."""

    prompt_tokens: int = Field(description="tokens that the model read")
    total_tokens: int = Field(description="the same")


class EmbeddingsResponse(Config):
    """Answer of `POST /v1/embeddings`, one embedding per text, in order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer for one text.

    Attributes:
        numbers: its embedding.
        truncated: only the beginning of the text was read.
    """

    numbers: npt.NDArray[np.float32]
    truncated: bool = False


def embedding_inputs(
    request: EmbeddingsRequest, served: ServedVersion, limits: RequestLimits
) -> Sequence[Text] | Sequence[Encoded]:
    """Return the texts, or token ids, to embed.

    Raises:
        RequestError: 422 the input has another type, or breaks a limit.
    """
    if request.dimensions not in (None, served.embedding_size):
        raise RequestError(
            f"the model's embeddings have {served.embedding_size} numbers, and only those",
            code="wrong_dimensions",
            field="dimensions",
        )
    given = request.input
    _check_length(given, served, limits)
    if isinstance(given, str) or _is_token_ids(given):
        given = [given]
    if not isinstance(given, list):
        raise wrong_type("input", expected="a text, a list of texts or token ids")
    if all(isinstance(item, str) for item in given):
        check_texts(given, limits, field="input")
        return given
    check_count(len(given), limits, field="input")
    return [_token_ids(item, served, f"input[{index}]") for index, item in enumerate(given)]


def _check_length(given: object, served: ServedVersion, limits: RequestLimits) -> None:
    """Refuse what is too long whatever it holds, before each of its items is looked at."""
    if isinstance(given, list) and len(given) > max(limits.max_inputs, served.max_length):
        if type(given[0]) is int:
            raise _too_many_tokens(len(given), served, "input[0]")
        check_count(len(given), limits, field="input")


def _is_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _token_ids(item: object, served: ServedVersion, field: str) -> Encoded:
    if not isinstance(item, list):
        raise wrong_type(field, expected=_ITEM)
    if not 1 <= len(item) <= served.max_length:
        raise _too_many_tokens(len(item), served, field)
    if not all(type(token) is int for token in item):
        raise wrong_type(field, expected=_ITEM)
    if not 0 <= min(item) <= max(item) < served.vocabulary_size:
        raise RequestError(
            f"a token id outside of the model's {served.vocabulary_size}",
            code="unknown_token",
            field=field,
        )
    return Encoded(tuple(item))


_ITEM: Final = "a text in a list of texts, or token ids alone"


def _too_many_tokens(number: int, served: ServedVersion, field: str) -> RequestError:
    return RequestError(
        f"{number} tokens, from 1 to {served.max_length} are allowed",
        code="too_many_tokens",
        field=field,
    )


def embeddings_body(
    served: ServedVersion,
    embeddings: Sequence[Embedded],
    *,
    num_tokens: int,
    encoding: Literal["float", "base64"],
) -> dict[str, Any]:
    """Return the body of the answer, as `EmbeddingsResponse` describes it."""
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _base64(one.numbers) if encoding == "base64" else one.numbers.tolist(),
            }
            | ({"truncated": True} if one.truncated else {})
            for index, one in enumerate(embeddings)
        ],
        "model": served.model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def _base64(row: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def models_body(models: Sequence[Listed]) -> dict[str, Any]:
    """Answer `GET /v1/models`."""
    return {
        "object": "list",
        "data": [
            {
                "id": one.served.model,
                "object": "model",
                "created": 0,
                "owned_by": "kovar",
                "version": one.served.version,
                "digest": one.served.digest,
                "loaded": one.state.name == "READY",
            }
            for one in models
        ],
    }
