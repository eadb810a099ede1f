"""The evaluation split, scored by the model that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from kovar.data import bucket_length, make_batches

if TYPE_CHECKING:
    import torch

    from kovar.data import Batch, TokenizedDataset
    from kovar.training.parallel import Parallel
    from kovar.training.tasks import Task
    from kovar.training.tasks.task import Tally


class Scorer:
    """Scores the split, each rank its share.

    Args:
        dataset: tokenized rows; every rank opens the same one.
        task: collates and counts.
        parallel: the ranks.
        autocast: casts operations as in training.
        pad_id: the token that fills rows.
        on_ladder: pad to the lengths of the ladder, which are few, not to the longest row.
        inference: whether layers compute in torch's inference mode.
    """

    def __init__(
        self,
        dataset: TokenizedDataset,
        *,
        task: Task,
        parallel: Parallel,
        autocast: Callable[[], AbstractContextManager[Any]],
        pad_id: int,
        on_ladder: bool,
        inference: bool,
    ) -> None:
        self.split = dataset.open("evaluation")
        self._dataset = dataset
        self._task = task
        self._parallel = parallel
        self._autocast = autocast
        self._pad_id = pad_id
        self._on_ladder = on_ladder
        self._inference = inference

    def score(self, model: torch.nn.Module, *, max_tokens: int) -> Tally:
        """Return the task's sums, the same on all ranks; all of them must call it.

        Args:
            model: as it is trained.
            max_tokens: padded tokens of a batch, or those of the longest row.
        """
        import torch

        device = self._parallel.device
        tally = self._task.tally(self._dataset, self.split, device)
        with self._parallel.scoring(model, inference=self._inference):
            for batch, counts in self._dealt(self._batches(max_tokens)):
                length = batch.length if self._on_ladder else batch.longest
                found = self._task.collate(
                    self.split, batch.rows, length, pad_id=self._pad_id, seed=0
                )
                inputs = {
                    name: torch.from_numpy(array).to(device) for name, array in found.inputs.items()
                }
                with self._autocast():
                    outputs = model(**inputs)
                if counts:
                    targets = torch.from_numpy(found.targets).to(device)
                    rows = batch.rows if found.target_rows is None else found.target_rows
                    tally.add(outputs, targets, rows)
            for tensor in tally.tensors():
                self._parallel.add_up(tensor)
        return tally

    def _batches(self, max_tokens: int) -> Sequence[Batch]:
        max_length = self._dataset.max_length
        longest = bucket_length(int(self.split.lengths.max()), max_length)
        return make_batches(
            self.split.lengths,
            fingerprint=self._dataset.fingerprint,
            seed=0,
            epoch=0,
            max_tokens=max(max_tokens, longest),
            max_length=max_length,
        )

    def _dealt(self, batches: Sequence[Batch]) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's share, and whether it counts: some only keep the ranks in step."""
        own = batches[self._parallel.data_rank :: self._parallel.data_size]
        yield from ((batch, True) for batch in own)
        most = -(-len(batches) // self._parallel.data_size)
        if self._parallel.in_step and len(own) < most:
            yield batches[0], False
