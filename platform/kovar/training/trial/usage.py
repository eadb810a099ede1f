"""What a trial has used since its process took it up: counted from its own events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kovar.training.trial.energy import EnergyMeter

if TYPE_CHECKING:
    from kovar.events import EventKind


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of one stay of a trial on one node; steps that are repeated count again.

    Args:
        num_steps: the step that the trial has reached.
        tokens: tokens that were trained on, without padding.
        train_seconds: spent in optimizer steps.
        peak_memory_bytes: of the GPU, or else of the process; None before the first steps.
        energy_joules: of the chip, as far as this trial used it; None where it cannot be read.
    """

    num_steps: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    energy_joules: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Usage:
        """Build from what `to_json` returned."""
        return cls(**told)


class Meter:
    """Adds up one stay.

    Args:
        energy: of what the trial computes on; None where nothing can be read.
    """

    def __init__(self, energy: EnergyMeter | None = None) -> None:
        self._energy = energy
        self._num_steps = self._tokens = 0
        self._seconds = 0.0
        self._memory: int | None = None

    def hear(self, event: EventKind, fields: Mapping[str, Any]) -> None:
        """Take one event of the trial."""
        if event == "resumed":
            self._num_steps = int(fields["step"])
        if event != "step":
            return
        self._num_steps = int(fields["step"])
        self._tokens += int(fields["tokens"])
        self._seconds += float(fields["seconds"])
        if fields.get("memory_bytes") is not None:
            self._memory = max(self._memory or 0, int(fields["memory_bytes"]))
        if self._energy is not None:
            self._energy.read()

    def usage(self) -> Usage:
        """Return the totals up to now."""
        return Usage(
            self._num_steps,
            self._tokens,
            self._seconds,
            self._memory,
            None if self._energy is None else self._energy.read(),
        )
