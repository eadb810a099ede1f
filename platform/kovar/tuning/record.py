"""What is known of one trial: the facts that reports, statistics and machines read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kovar.tuning.points import Point

TrialStatus = Literal["finished", "stopped", "diverged", "failed", "excluded", "unfinished"]
"""How a trial ended.

`finished`: trained to its end; `stopped`: ended early by the scheduler; `diverged`: its loss or
its gradients were not finite; `failed`: crashed more often than allowed; `excluded`: never started,
since its chip or its memory cannot hold it; `unfinished`: the budget was used up before its end.
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one evaluation.

    Args:
        step: optimizer steps done.
        seconds: of training until then.
        metrics: name → value, on the evaluation split.
    """

    step: int
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Stay:
    """One attempt of a trial on one node; an interrupted trial has several.

    Args:
        node: name of the node.
        node_type: as declared in the cluster's file; None where none is declared.
        chip: what it computed on.
        started_at: UNIX time.
        ended_at: UNIX time.
        outcome: how the stay ended: a trial's status, `interrupted` or `lost`.
    """

    node: str
    node_type: str | None
    chip: str
    started_at: float
    ended_at: float
    outcome: str


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of a sweep.

    Args:
        number: counts from 1.
        configuration: counts from 1; trials of one configuration differ in their seed alone.
        seed: of training.
        point: dotted path → value.
        status: how it ended.
        reason: why it did not finish; None if it did.
        metrics: of the evaluation that counts (best or last); empty where there is none.
        history: all evaluations, in order.
        precision: as resolved on its chip; None if it never started.
        precision_reason: why this precision.
        train_seconds: spent in optimizer steps.
        wall_seconds: from its start to its end, over all its stays.
        num_steps: optimizer steps done.
        tokens: tokens that were trained on, without padding.
        peak_memory_bytes: largest memory of its process, or of its device; None if unknown.
        energy_joules: of its chip while it ran; None where it cannot be read.
        price_per_hour: of the share of a node that it held, in the currency of the cluster's file;
            None where no price is declared.
        stays: where and when it ran.
        incidents: what happened to it, in order, in words: out of memory, resumed, lost node.
        predictions: Parquet file of its answers on the evaluation split, relative to the sweep's
            folder; None if there is none.
    """

    number: int
    configuration: int
    seed: int
    point: Point
    status: TrialStatus
    reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[Evaluation, ...] = ()
    precision: str | None = None
    precision_reason: str | None = None
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    num_steps: int = 0
    tokens: int = 0
    peak_memory_bytes: int | None = None
    energy_joules: float | None = None
    price_per_hour: float | None = None
    stays: tuple[Stay, ...] = ()
    incidents: tuple[str, ...] = ()
    predictions: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens without padding over the seconds of training; None before the first step."""
        return self.tokens / self.train_seconds if self.train_seconds else None

    @property
    def cost(self) -> float | None:
        """What the trial cost; None where no price is declared."""
        return (
            None if self.price_per_hour is None else self.price_per_hour * self.wall_seconds / 3600
        )
