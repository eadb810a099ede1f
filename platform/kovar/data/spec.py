"""What a user says about data: the `data:` block of a specification."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from kovar.config import Config


class EvaluationSource(Config):
    """A held-out data set of its own, in place of a share of the training source."""

    source: str = Field(min_length=1, description="like data.source; hub ids may end in #test")


def _evaluation_kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return type(value).__name__
    return "EvaluationSource" if isinstance(value, dict | EvaluationSource) else None


Evaluation = Annotated[
    Annotated[int, Tag("int")]
    | Annotated[float, Tag("float")]
    | Annotated[EvaluationSource, Tag("EvaluationSource")],
    Discriminator(
        _evaluation_kind,
        custom_error_type="evaluation",
        custom_error_message=(
            "evaluation is a number of rows (1605), a share (0.1) or {source: another data set}"
        ),
    ),
]


class DataSpec(Config):
    """A data set of texts, how it is split and how long a sequence may become."""

    source: str = Field(
        min_length=1,
        description=(
            "package:NAME, hub:OWNER/NAME[/CONFIG][@REVISION][#SPLIT], or a csv, tsv, jsonl, json, "
            "parquet or arrow file or a folder of them, relative to the specification's folder"
        ),
    )
    text: str = Field(default="text", min_length=1, description="name of the text column")
    label: str = Field(default="label", min_length=1, description="name of the label column")
    text_pair: str | None = Field(
        default=None,
        min_length=1,
        description="name of a column of second texts, which are read after the first ones",
    )
    label_separator: str = Field(
        default=",",
        min_length=1,
        description="what divides the labels of a row where they are one text, not a list",
    )
    tokens: str = Field(
        default="tokens",
        min_length=1,
        description="name of the column of words: lists, or text with spaces between them",
    )
    tags: str = Field(
        default="tags",
        min_length=1,
        description="name of the column of tags, one for each word: O, B-TYPE or I-TYPE",
    )
    messages: str | None = Field(
        default=None,
        min_length=1,
        description="name of the column of conversations; the assistant's part is learned",
    )
    prompt: str | None = Field(
        default=None, min_length=1, description="name of the column of prompts, which are only read"
    )
    completion: str | None = Field(
        default=None, min_length=1, description="name of the column of answers, which are learned"
    )
    packing: bool = Field(
        default=True,
        description="training texts fill rows of max_length one after the other, each seen by "
        "itself; false: one text a row",
    )
    evaluation: Evaluation = Field(
        default=0.1,
        description="held-out rows: a number, a share between 0 and 1, or {source: …}",
    )
    split_seed: int = Field(default=0, ge=0, description="seed of the split")
    max_length: int = Field(
        default=128, ge=8, le=8192, description="longest sequence in tokens; the rest is cut"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("prompt and completion name two columns: set both, or neither")
        if self.messages is not None and self.prompt is not None:
            raise ValueError("rows hold messages, or a prompt and a completion: set one of them")
        return self

    @field_validator("evaluation")
    @classmethod
    def _positive(cls, value: int | float | EvaluationSource) -> int | float | EvaluationSource:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a share of the rows lies between 0 and 1; 1605 is a number of rows")
        if isinstance(value, int) and value < 1:
            raise ValueError("hold out at least 1 row")
        return value
