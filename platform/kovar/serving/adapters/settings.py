"""Adapters that a replica loads when they are first asked for."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, model_validator

from kovar.config import Config

PATTERN: Final = frozenset("*?[")


class ServedAdapter(Config):
    """One adapter, or a pattern of names."""

    model: str = Field(
        min_length=1, description="name of the model in the registry, or a pattern such as tenant-*"
    )
    version: str = Field(
        default="champion", min_length=1, description="alias, number or digest of the version"
    )

    @property
    def is_pattern(self) -> bool:
        """Whether any number of models may be meant."""
        return not PATTERN.isdisjoint(self.model)


class AdapterSettings(Config):
    """Adapters of one base, in memory as long as they are asked for."""

    models: tuple[ServedAdapter, ...] = Field(
        min_length=1, max_length=1_000, description="the adapters, by names or patterns"
    )
    base: str | None = Field(
        default=None,
        min_length=1,
        description="what they were trained on, as NAME@VERSION; the base of `model` if absent",
    )
    max_loaded: int = Field(
        default=32, ge=1, le=10_000, description="adapters that a replica has in memory"
    )
    merge: bool = Field(
        default=False,
        description="give each adapter the layers that it changes: faster, and larger in memory",
    )
    preload: tuple[str, ...] = Field(
        default=(), description="names of those that are loaded before the replica answers"
    )

    @model_validator(mode="after")
    def _what_is_preloaded_has_room(self) -> Self:
        if len(self.preload) > self.max_loaded:
            raise ValueError(
                f"preload names {len(self.preload)} adapters, max_loaded is {self.max_loaded}"
            )
        return self
