"""The version that answers, as responses name it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """One version that answers; part of every response.

    Attributes:
        model: name of the model.
        version: number of the version.
        digest: SHA-256 of its manifest.
        labels: the labels in the order of the model's outputs.
        max_length: tokens that one text may have; longer texts are truncated or refused.
        runtime: what executes it.
        precision: number format that it runs at.
        vocabulary_size: token ids are below this.
        embedding_size: numbers of a text's embedding.
        reason: why this runtime and precision.
        left_out: what could have executed it instead, and failed.
    """

    model: str
    version: int
    digest: str
    labels: tuple[str, ...]
    max_length: int
    runtime: str
    precision: str
    vocabulary_size: int
    embedding_size: int
    reason: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response."""
        return {
            "x-kovar-model": self.model,
            "x-kovar-version": str(self.version),
            "x-kovar-digest": self.digest,
            "x-kovar-runtime": f"{self.runtime}; precision={self.precision}",
        }

    @cached_property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers as ASGI sends them."""
        return tuple((name.encode(), value.encode()) for name, value in self.headers.items())
