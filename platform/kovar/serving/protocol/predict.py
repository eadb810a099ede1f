"""`POST /v1/predict`: texts in; labels, probabilities and the weight of each token out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from kovar.config import Config
from kovar.inference import Prediction, Text
from kovar.serving.protocol.attribution import TokenWeight
from kovar.serving.protocol.refusal import wrong_type
from kovar.serving.protocol.served import ServedVersion

INPUT_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"text": {"type": "string"}, "text_pair": {"type": "string"}},
                "required": ["text"],
                "additionalProperties": False,
            },
        ]
    },
}


class PredictRequest(Config):
    """Body of `POST /v1/predict`."""

    inputs: Annotated[list[Any], WithJsonSchema(INPUT_SCHEMA)] = Field(
        description="texts to classify; a pair of texts is {text: …, text_pair: …}"
    )
    model: str | None = Field(
        default=None, description="one of the application's models; its first one if absent"
    )
    scores: bool = Field(default=True, description="send the probability of every label")
    attributions: bool = Field(
        default=False, description="send how much each token counted for the label"
    )
    truncate: bool | None = Field(
        default=None,
        description="read the beginning of a text with too many tokens (true) or refuse it "
        "(false); as the application's `limits.truncate` if absent",
    )


class PredictedText(Config):
    """The answer for one text."""

    label: str = Field(description="label with the highest probability")
    score: float = Field(description="its probability")
    scores: dict[str, float] | None = Field(default=None, description="label → probability")
    truncated: bool = Field(description="only the beginning of the text was read")
    attributions: list[TokenWeight] | None = Field(
        default=None, description="how much each token counted for the label, in their order"
    )


class PredictResponse(Config):
    """Answer of `POST /v1/predict`, one prediction per text, in order."""

    model: str = Field(description="name of the model")
    version: int = Field(description="number of the version")
    digest: str = Field(description="SHA-256 of the version's manifest")
    predictions: list[PredictedText] = Field(description="one per text")


def inputs_of(request: PredictRequest) -> list[Text]:
    """Return the texts and pairs of texts.

    Raises:
        RequestError: 422 an input is neither.
    """
    return [
        item if isinstance(item, str) else _pair_of(item, f"inputs[{index}]")
        for index, item in enumerate(request.inputs)
    ]


def _pair_of(item: Any, field: str) -> Text:
    if not isinstance(item, dict) or not {"text"} <= item.keys() <= {"text", "text_pair"}:
        raise wrong_type(field, expected="a text, or an object with text and text_pair")
    for name, value in item.items():
        if not isinstance(value, str):
            raise wrong_type(f"{field}.{name}", expected="a text")
    return (item["text"], item["text_pair"]) if "text_pair" in item else item["text"]


def predict_body(
    served: ServedVersion,
    predictions: Sequence[Prediction],
    *,
    scores: bool = True,
    attributions: Sequence[Sequence[TokenWeight]] | None = None,
) -> dict[str, Any]:
    """Return the body of the answer, as `PredictResponse` describes it.

    Args:
        served: what answered.
        predictions: one per text.
        scores: whether the probability of every label is sent.
        attributions: the weights of each text's tokens, where they were asked for.
    """
    answers: list[dict[str, Any]] = []
    for index, item in enumerate(predictions):
        answer: dict[str, Any] = {"label": item.label, "score": item.score}
        if scores:
            answer["scores"] = item.scores
        answer["truncated"] = item.truncated
        if attributions is not None:
            answer["attributions"] = attributions[index]
        answers.append(answer)
    return {
        "model": served.model,
        "version": served.version,
        "digest": served.digest,
        "predictions": answers,
    }
