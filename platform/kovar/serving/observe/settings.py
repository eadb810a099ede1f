"""The `observe:` block of a serving spec: what is written down about requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kovar.config import Config, SizeBytes

Region = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class CaptureSettings(Config):
    """A sample of texts, masked, for looking at what a model is asked; off unless asked for."""

    share: float = Field(default=0.0, ge=0, le=1, description="share of answered requests kept")
    max_characters: int = Field(default=2_000, ge=1, description="characters kept of one text")
    keep_days: int = Field(default=30, ge=1, description="days after which a file is removed")
    phone_regions: tuple[Region, ...] = Field(
        default=("US", "GB", "DE"),
        description="countries whose telephone numbers are masked without their + and code, too",
    )


class ObserveSettings(Config):
    """What is written down about requests, and where."""

    access_log: bool = Field(default=True, description="one JSON line a request, without its texts")
    folder: str | None = Field(
        default=None, min_length=1, description="folder of logs and captures; Serve's own if absent"
    )
    max_file_bytes: SizeBytes = Field(
        default=64 << 20, ge=1 << 10, description="size at which a file is closed, as 64MiB"
    )
    num_files: int = Field(default=8, ge=1, description="closed log files kept for one replica")
    keep_days: int = Field(
        default=30, ge=1, description="days after which the logs of a replica that is gone go"
    )
    metrics: bool = Field(default=True, description="count requests and batches for Prometheus")
    capture: CaptureSettings = Field(default=CaptureSettings(), description="a sample of texts")
