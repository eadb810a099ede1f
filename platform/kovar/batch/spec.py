"""The specs of jobs that run a version on many rows: `kind: evaluate` and `kind: predict`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from kovar.config import Config, SizeBytes
from kovar.data import DataSpec
from kovar.data.spec import Evaluation
from kovar.precision import Precision
from kovar.resources import Request, Resources
from kovar.training.spec import Name


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


PREDICTED: Final = ("label", "score", "scores", "labels", "tags", "loss", "num_tokens")
"""The columns that output files may have: each task has some of them."""

Columns = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Edges = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]


class _BatchSpec(Config):
    model: Name = Field(description="name of the model in the registry")
    version: str = Field(
        default="champion", min_length=1, description="alias, number or digest of the version"
    )
    runtime: Literal["torch"] = Field(default="torch", description="what executes the version")
    precision: Precision = Field(default="auto", description="number format of the compute")
    max_tokens: int = Field(
        default=2048, ge=1, description="padded tokens that run together: rows × longest row"
    )
    resources: Resources = Resources()

    @field_validator("resources")
    @classmethod
    def _the_runtime_knows_the_chip(cls, resources: Resources) -> Resources:
        if resources.worker.kind == "tpu":
            raise ValueError("a worker runs on cpu or gpu: the torch runtime does not use TPUs")
        return resources

    @property
    def worker(self) -> Request:
        """What each worker needs."""
        return self.resources.worker


class EvaluateData(Config):
    """The labeled rows of an evaluation."""

    name: Name = Field(description="what the registry, gates and cards call this data set")
    source: str = Field(
        min_length=1, description="like data.source of a fine-tuning spec: package:, hub: or files"
    )
    text: str = Field(default="text", min_length=1, description="name of the text column")
    label: str = Field(default="label", min_length=1, description="name of the label column")
    text_pair: str | None = Field(
        default=None, min_length=1, description="name of the column of second texts"
    )
    label_separator: str = Field(
        default=",", min_length=1, description="what divides several labels that are one text"
    )
    tokens: str = Field(
        default="tokens", min_length=1, description="name of the column of words, for a tagger"
    )
    tags: str = Field(
        default="tags", min_length=1, description="name of the column of tags, for a tagger"
    )
    split: Literal["all", "evaluation"] = Field(
        default="all",
        description="all rows, or those that a fine-tuning run with the next two fields holds out",
    )
    evaluation: Evaluation = Field(
        default=0.1, description="held-out rows, as in the fine-tuning spec: a number or a share"
    )
    split_seed: int = Field(default=0, ge=0, description="seed of the split")

    def to_data_spec(self) -> DataSpec:
        """Return the data block that a fine-tuning spec of these rows has."""
        return DataSpec(
            source=self.source,
            text=self.text,
            label=self.label,
            text_pair=self.text_pair,
            label_separator=self.label_separator,
            tokens=self.tokens,
            tags=self.tags,
            evaluation=self.evaluation,
            split_seed=self.split_seed,
        )


class SliceSettings(Config):
    """What divides the rows into slices."""

    lengths: Edges = Field(
        default=(16, 32, 64, 128),
        description="longest length in tokens of each bucket but the last; [] for none",
    )
    columns: Columns = Field(default=(), description="columns whose values divide the rows")

    @field_validator("lengths")
    @classmethod
    def _ascending(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if any(edge < 1 for edge in edges) or any(low >= high for low, high in pairwise(edges)):
            raise ValueError("lengths ascend from at least 1, such as [16, 32, 64]")
        return edges


class EvaluateSpec(_BatchSpec):
    """`kind: evaluate`."""

    kind: Literal["evaluate"] = Field(description="names this schema")
    data: EvaluateData
    slices: SliceSettings = SliceSettings()
    batch_rows: int = Field(
        default=512, ge=1, description="rows that a worker takes at a time; sorted by length"
    )


class PredictInput(Config):
    """The rows that predictions are wanted for."""

    source: str = Field(
        min_length=1,
        description="a parquet, jsonl, ndjson, csv or tsv file, or a folder of files of one of "
        "these formats, relative to the spec's folder",
    )
    text: str = Field(
        default="text",
        min_length=1,
        description="name of the text column; a tagger divides texts at white space",
    )
    text_pair: str | None = Field(
        default=None, min_length=1, description="name of the column of second texts"
    )
    keep: Columns = Field(default=(), description="columns that are copied to the output")
    part_size: SizeBytes = Field(
        default=16 << 20,
        ge=1 << 10,
        description="bytes of input per output file, for example 16MiB; a Parquet row group is "
        "never divided",
    )
    bad_rows: Literal["fail", "null"] = Field(
        default="fail",
        description="a row without text: fail names it and ends the job, null predicts nothing "
        "for it",
    )

    @field_validator("keep")
    @classmethod
    def _no_column_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if taken := sorted(set(names) & set(PREDICTED)):
            raise ValueError(f"{taken[0]!r} is a column of the predictions: rename it in the input")
        if len(set(names)) < len(names):
            raise ValueError("a column is listed twice")
        return names


class PredictOutput(Config):
    """Where predictions go."""

    folder: str = Field(
        min_length=1, description="folder of the output files, relative to the spec's folder"
    )
    format: Literal["parquet", "jsonl"] = Field(
        default="parquet", description="format of the output files"
    )


class PredictSpec(_BatchSpec):
    """`kind: predict`."""

    kind: Literal["predict"] = Field(description="names this schema")
    input: PredictInput
    output: PredictOutput
