"""What the engine asks of a task: a model with its head, tensors, a loss, and metrics.

A task is stateless: one instance stands in the table `TASKS` and serves every run. Nothing here
imports torch before it is called, so specs are validated without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from kovar.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from kovar.data import LayoutName, Split, TokenizedDataset
    from kovar.models import BaseModelFiles, BuiltModel
    from kovar.registry import DatasetPredictions, Golden, Signature

TaskName = Literal[
    "text-classification",
    "multilabel-classification",
    "token-classification",
    "masked-lm",
    "causal-lm",
]
"""The tasks of the table, as a spec names them."""

Direction = Literal["max", "min"]

Answers = Mapping[str, "NDArray[Any] | Sequence[Sequence[int]]"]
"""What a model answered to each row of the evaluation split, in the split's order: column → a
number or a list of numbers a row. `loss` is a sum in nats."""

NUM_GOLDEN: Final = 16
"""Golden examples of a version."""


@dataclass(frozen=True, slots=True)
class Collated:
    """Rows as arrays of one shape.

    Args:
        inputs: what the model's `forward` takes, by name.
        targets: what the loss compares the outputs with.
        num_targets: predictions that the loss sums over: rows, or the tokens that count.
        targets_per_token: whether targets have the shape of the tokens, and move with them.
        target_rows: row number of each target, where a row has any number of them.
    """

    inputs: dict[str, NDArray[Any]]
    targets: NDArray[Any]
    num_targets: int
    targets_per_token: bool = False
    target_rows: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Examined:
    """What a trained version answered to the evaluation split, through the runtime that serves.

    Args:
        metrics: plain JSON types, as a manifest stores them.
        golden: examples that every runtime must reproduce.
        predictions: the label of every row, for paired comparisons of versions; None where a row
            has no single label.
    """

    metrics: dict[str, Any]
    golden: Golden
    predictions: DatasetPredictions | None = None


class Tally(ABC):
    """Sums of one evaluation on one rank; the engine adds those of all ranks before `metrics`."""

    @abstractmethod
    def add(self, outputs: Any, targets: torch.Tensor, rows: NDArray[np.int64]) -> None:
        """Count one batch.

        Args:
            outputs: what the model returned.
            targets: as collated, on the device.
            rows: row numbers within the split; with `Collated.target_rows`, those.
        """

    @abstractmethod
    def tensors(self) -> list[torch.Tensor]:
        """Return the sums themselves; they are added over all ranks in place."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Return every metric of `Task.metrics`, from the sums over all ranks."""

    @abstractmethod
    def answers(self) -> Answers:
        """Return what was answered to each row, from the sums over all ranks."""


class Task(ABC):
    """One row of the table.

    Attributes:
        name: as a spec and a version's signature name it.
        layout: what the rows of its data sets are made of.
        metric: the metric that says which of two models is better, unless the spec names another.
        metrics: every metric that an evaluation reports, and whether more or less of it is better.
        predicted_share: share of the tokens that the layer onto the vocabulary predicts, at most; 0
            for models without such a layer.
    """

    predicted_share: float = 0.0
    name: TaskName
    layout: LayoutName
    metric: str
    metrics: Mapping[str, Direction]

    learns_to_write: ClassVar[bool] = False
    """Whether models learn it that write, whose tokens see only those before them."""

    def check_base(self, config: Mapping[str, Any], *, source: str) -> None:
        """Refuse a base that cannot learn this task.

        Args:
            config: content of its config.json.
            source: what the specification named.

        Raises:
            ModelError: naming the kinds of models that can.
        """
        from kovar.models import ARCHITECTURES, DECODERS

        kinds = DECODERS if self.learns_to_write else ARCHITECTURES
        if config["model_type"] not in kinds:
            raise ModelError(
                f"{self.name} does not train such models",
                field="model.base",
                got=f"{source} ({config['model_type']})",
                allowed=", ".join(sorted(kinds)),
                hint="choose another model or another task",
            )

    @abstractmethod
    def build_model(
        self, base: BaseModelFiles, dataset: TokenizedDataset, *, dropout: float | None = None
    ) -> BuiltModel:
        """Load the base in fp32 and put the head on; new weights come from torch's generator.

        Args:
            base: a checked model folder.
            dataset: names the labels.
            dropout: sets every dropout probability; None keeps the base's own.
        """

    def num_targets(self, split: Split, rows: NDArray[np.int64]) -> int | None:
        """Return how many targets rows have, or None when only collating tells.

        A task that can tell spares the ranks an exchange before every step.
        """
        return None

    @abstractmethod
    def collate(
        self, split: Split, rows: NDArray[np.int64], length: int, *, pad_id: int, seed: int
    ) -> Collated:
        """Pad rows to one length. Runs in a thread while the step before computes.

        Args:
            split: where the rows are.
            rows: row numbers within it; at least one.
            length: tokens to pad to.
            pad_id: the token that fills rows.
            seed: of what is drawn anew in every epoch, such as masks; draw from it and the row
                number, never from torch's generator: ranks and micro-batches then change nothing.
        """

    @abstractmethod
    def loss(
        self, outputs: Any, targets: torch.Tensor, *, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        """Return the loss summed (never averaged) over the targets, in at least fp32."""

    @abstractmethod
    def tally(self, dataset: TokenizedDataset, split: Split, device: torch.device) -> Tally:
        """Begin an evaluation of a split."""

    def save_model(
        self, model: PreTrainedModel, base: BaseModelFiles, out_dir: Path, *, max_length: int
    ) -> None:
        """Write the trained model, whole, with its tokenizer."""
        from kovar.models import save_model

        save_model(model, base, out_dir, max_length=max_length)

    @abstractmethod
    def signature(self, labels: tuple[str, ...], *, max_length: int) -> Signature:
        """Return what goes into a version and what comes out, for its manifest."""

    @abstractmethod
    def examine(
        self,
        runtime: Any,
        split: Split,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Examined:
        """Answer the evaluation split through a runtime, and score the answers.

        Args:
            runtime: what `kovar.inference.load_any` made of the version's folder.
            split: the evaluation split, which keeps the texts.
            progress: called with (rows done, rows in all).
        """


def better(value: float, than: float, *, direction: Direction, by: float = 0.0) -> bool:
    """Return whether a metric's value is better than another by more than `by`."""
    return value - than > by if direction == "max" else than - value > by


def title(metric: str) -> str:
    """Return how a reader calls a metric: `macro_f1` → `macro F1`."""
    return metric.replace("_", " ").replace("f1", "F1")
