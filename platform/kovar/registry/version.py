"""What the registry returns: versions, models, alias moves, problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from kovar.registry.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Version:
    """One immutable version of a model."""

    model: str
    number: int
    """Counts from 1 within the model; a convenience."""
    digest: str
    """SHA-256 of the manifest; the identity."""
    manifest: Manifest
    """Shared by all who ask for this version in one process: do not change what it holds."""
    created_at: datetime
    created_by: str
    run: str | None
    """Id of the run that made it."""
    sweep: str | None
    """Id of the sweep that the run belongs to."""
    tags: Mapping[str, str]
    run_facts: Mapping[str, JsonValue]
    """What an identical run would not repeat: seconds, hardware, cost."""

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


@dataclass(frozen=True, kw_only=True)
class VersionSummary:
    """One version as a row of a page: what lists show, without the rest of the manifest."""

    model: str
    number: int
    digest: str
    created_at: datetime
    created_by: str
    run: str | None
    sweep: str | None
    tags: Mapping[str, str]
    method: str
    precision: str
    metrics: Mapping[str, Mapping[str, JsonValue]]
    """Data set → metric → value."""

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model: a name with versions and aliases."""

    name: str
    created_at: datetime
    num_versions: int
    latest: int
    """The highest number."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Alias → number of the version it points at."""


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """What one gate found."""

    gate: str
    """Its name, for example `metrics: evaluation.accuracy`."""
    passed: bool
    message: str
    """What was found and what is needed, with the numbers."""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GoldenResult:
    """Whether a runtime reproduced the golden examples of a version."""

    runtime: str
    """Name of the runtime, for example `onnxruntime`."""
    chip: str
    passed: bool
    difference: float | None
    """Largest difference of a probability; None where the answers could not be compared."""
    tolerance: float
    """Largest difference that counts as the same answer."""


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One entry of an alias's history."""

    model: str
    alias: str
    sequence: int
    """Counts from 1 within the alias; the order of the moves, whatever the clocks say."""
    moved_at: datetime
    moved_by: str
    from_number: int | None
    """None when the alias did not exist before."""
    from_digest: str | None
    to_number: int
    to_digest: str
    reason: str | None
    forced: bool
    """Whether the move was made without a compare-and-swap."""
    action: Literal["move", "promotion", "rollback"] = "move"
    gates: tuple[GateResult, ...] = ()
    """What the gates found; empty where none was declared, and where none was asked."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that `verify` found wrong with a version."""

    model: str
    number: int
    path: str
    """The file inside the version; empty when the manifest itself does not match its digest."""
    sha256: str
    """Name of the blob, or the version's digest when the manifest is at fault."""
    kind: Literal["missing", "truncated", "altered", "manifest"]
    message: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (f"{self.model}@{self.number}", self.path) if part)
        return f"{where}: {self.message} (sha256 {self.sha256})"
