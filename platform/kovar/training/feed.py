"""From planned steps to tensors: one rank's share of each global batch, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kovar.data import deal
from kovar.training.padding import PADDED, ResolvedPadding, in_line

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from kovar.data import Split
    from kovar.training.parallel import Parallel
    from kovar.training.schedule import PlannedStep
    from kovar.training.tasks import Collated, Task


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward and backward pass takes.

    Args:
        inputs: what the model's `forward` takes, by name.
        targets: what the loss compares the outputs with.
        longest: tokens of the longest row, where rows stand in one line.
        weight: 1, or 0 for a row that only stands in, on a rank that has none: it computes with
            the others and changes nothing.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    weight: float = 1.0
    longest: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the model is called with."""
        if self.longest is None:
            return {**self.inputs}
        return {**self.inputs, "max_length_q": self.longest}

    def to(self, device: torch.device) -> MicroBatch:
        """Copy to a device; from pinned memory without waiting."""
        if device.type == "cpu":
            return self
        inputs = {name: t.to(device, non_blocking=True) for name, t in self.inputs.items()}
        targets = self.targets.to(device, non_blocking=True)
        return MicroBatch(inputs, targets, self.weight, self.longest)


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One rank's part of one optimizer step.

    Args:
        planned: the step.
        micro_batches: at least one, and as many on every rank.
        num_targets: targets of this rank, or of all ranks where `is_global`.
        is_global: whether no exchange is needed to know the targets of all ranks.
        num_tokens: tokens of the global batch without padding.
        num_padded: tokens of the global batch with padding.
        rows_per_pass: the most rows of a micro-batch, on any rank.
        micro_batch_tokens: the limit that it was cut by.
    """

    planned: PlannedStep
    micro_batches: tuple[MicroBatch, ...]
    num_targets: int
    is_global: bool
    num_tokens: int
    num_padded: int
    rows_per_pass: int
    micro_batch_tokens: int | None


class Feed:
    """Prepares steps, the next one in a thread while the caller computes the current one.

    Args:
        task: collates.
        split: the training rows.
        parallel: says which rows are this rank's.
        micro_batch_tokens: padded tokens of one pass of one rank; None passes all rows at once.
        pad_id: the token that fills rows.
        seed: of what a task draws, with the epoch.
        on_ladder: pad to the lengths of the ladder, which are few, not to the longest row.
        padding: whether rows are padded or stand in one line.

    Attributes:
        micro_batch_tokens: may be lowered at any time; steps in preparation do not hear of it.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        parallel: Parallel,
        micro_batch_tokens: int | None = None,
        pad_id: int = 0,
        seed: int = 0,
        on_ladder: bool = False,
        padding: ResolvedPadding = PADDED,
    ) -> None:
        self._padding = padding
        self._task = task
        self._split = split
        self._parallel = parallel
        self.micro_batch_tokens = micro_batch_tokens
        self._pad_id = pad_id
        self._seed = seed
        self._on_ladder = on_ladder

    def prepare(self, planned: PlannedStep) -> StepBatch:
        """Collate this rank's rows of one step; uses no random generator of torch."""
        batch, limit = planned.batch, self.micro_batch_tokens
        known = self._task.num_targets(self._split, batch.rows)
        num_tokens = int(self._split.lengths[batch.rows].sum())
        pieces = self._cut(planned, limit)
        prepared = [self._collate(rows, planned) for rows in pieces]
        return StepBatch(
            planned,
            tuple(micro_batch for micro_batch, _ in prepared),
            num_targets=sum(count for _, count in prepared) if known is None else known,
            is_global=known is not None,
            num_tokens=num_tokens,
            num_padded=num_tokens
            if self._padding.padding_free
            else self._length(planned) * len(batch.rows),
            rows_per_pass=-(-self._most_rows(planned) // len(pieces)),
            micro_batch_tokens=limit,
        )

    def sample(self, planned: PlannedStep) -> MicroBatch:
        """Collate one row of a step, the same on every rank."""
        return self.probe(planned.batch.rows[:1], self._length(planned))

    def probe(self, rows: NDArray[np.int64], length: int) -> MicroBatch:
        """Collate some rows for a pass that teaches nothing."""
        found = self._task.collate(self._split, rows, length, pad_id=self._pad_id, seed=0)
        return self._micro_batch(found, rows)

    def _length(self, planned: PlannedStep) -> int:
        return planned.batch.length if self._on_ladder else planned.batch.longest

    def _cut(self, planned: PlannedStep, limit: int | None) -> list[NDArray[np.int64]]:
        """Cut this rank's rows; as many pieces on every rank, so that all of them compute alike."""
        import numpy as np

        batch = planned.batch
        rows = deal(batch, self._parallel.data_rank, self._parallel.data_size)
        if limit is None:
            return [rows]
        capacity = max(1, limit // self._length(planned))
        return np.array_split(rows, -(-self._most_rows(planned) // capacity))

    def _most_rows(self, planned: PlannedStep) -> int:
        """Return the rows of the rank that has the most."""
        return -(-len(planned.batch.rows) // self._parallel.data_size)

    def _collate(self, rows: NDArray[np.int64], planned: PlannedStep) -> tuple[MicroBatch, int]:
        stands_in = len(rows) == 0
        rows = planned.batch.rows[:1] if stands_in else rows
        found = self._task.collate(
            self._split,
            rows,
            self._length(planned),
            pad_id=self._pad_id,
            seed=self._seed * 1_000_003 + planned.epoch,
        )
        weight, count = (0.0, 0) if stands_in else (1.0, found.num_targets)
        return self._micro_batch(found, rows, weight), count

    def _micro_batch(
        self, found: Collated, rows: NDArray[np.int64], weight: float = 1.0
    ) -> MicroBatch:
        import numpy as np

        longest = None
        if self._padding.padding_free:
            found = in_line(found, self._split.lengths[rows], self._padding.first_position)
            longest = int(np.diff(found.inputs["cu_seq_lens_q"]).max())
        inputs = {name: self._tensor(array) for name, array in found.inputs.items()}
        return MicroBatch(inputs, self._tensor(found.targets), weight, longest)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._parallel.device.type == "cuda" else tensor

    def batches(self, steps: Sequence[PlannedStep]) -> Generator[StepBatch]:
        """Yield the steps in order, each prepared while the one before it computes.

        Close it when not all steps are taken: its thread ends then.
        """
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1, thread_name_prefix="kovar-feed") as thread:
            waiting = [thread.submit(self.prepare, step) for step in steps[:1]]
            for step in steps[1:]:
                ready = waiting.pop().result()
                waiting.append(thread.submit(self.prepare, step))
                yield ready
            for last in waiting:
                yield last.result()
