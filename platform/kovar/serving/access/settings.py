"""The `access:` block of a serving spec: who may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from kovar.config import Config

OpenPart = Literal["health", "docs", "metadata"]


class AccessSettings(Config):
    """Who may ask; everybody, when no file of keys is named here or in the settings."""

    keys: str | None = Field(
        default=None,
        min_length=1,
        description="file of API keys, the same path on every node; KOVAR_API_KEYS if absent",
    )
    open: tuple[OpenPart, ...] = Field(
        default=("health",), description="what answers without a key: health, docs, metadata"
    )

    def resolved(self, default: Path | None) -> AccessSettings:
        """Name the file as a replica finds it, which starts in another folder than the builder."""
        path = Path(self.keys).expanduser().absolute() if self.keys else default
        return self.model_copy(update={"keys": str(path) if path else None})
