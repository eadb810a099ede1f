"""The training loop of one rank: torch and a list of planned steps. It does not know Ray.

Two runs with the same spec, data and number of workers end with the same bits, interrupted or
not: batches and learning rates are planned (schedule.py), dropout is seeded per step and rank,
and a checkpoint holds the rest.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kovar.data import bucket_length, collate, deal, make_batches
from kovar.errors import NonFiniteError
from kovar.evaluation import classification_metrics
from kovar.training.schedule import PlannedStep, plan_steps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    import torch

    from kovar.data import Split, TokenizedDataset
    from kovar.events import EventKind
    from kovar.precision import ResolvedPrecision
    from kovar.training.checkpoint import CheckpointFolder
    from kovar.training.spec import TrainingSettings

LOG_EVERY = 10

SMALLEST_SCALE = 1.0
"""An fp16 loss scale below it means that gradients overflow at every step."""


class Report(Protocol):
    """Receives what happens; `EventLog.emit` is one."""

    def __call__(self, event: EventKind, **fields: Any) -> object:
        """Take one event with its fields, as documented in kovar.events."""


@dataclass
class _Window:
    """Sums since the last report; tensors stay on the device until then."""

    loss: torch.Tensor
    gradient_norm: torch.Tensor
    rows: int = 0
    tokens: int = 0
    padded: int = 0
    since: float = 0.0


class Engine:
    """Trains one classifier on one rank.

    Args:
        model: torch classifier with `logits` in its output.
        dataset: tokenized rows; every rank opens the same one.
        settings: how the weights move.
        precision: as resolved for `device`.
        device: where the model lives.
        rank: this process's rank.
        world_size: number of ranks; above 1 the default process group must exist.
        report: receives events; called on rank 0 only.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        dataset: TokenizedDataset,
        *,
        settings: TrainingSettings,
        precision: ResolvedPrecision,
        device: torch.device,
        report: Report,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        import torch
        from torch.nn.parallel import DistributedDataParallel

        self.settings = settings
        self.precision = precision
        self.device = device
        self.rank = rank
        self.world_size = world_size
        self.dataset = dataset
        self.train_split = dataset.open("train")
        self.evaluation_split = dataset.open("evaluation")
        self.steps = plan_steps(
            self.train_split.lengths,
            fingerprint=dataset.fingerprint,
            max_length=dataset.facts["max_length"],
            settings=settings,
        )
        self._report = report if rank == 0 else _silent
        self.model = model.to(device)
        self.pad_id = int(getattr(model.config, "pad_token_id", None) or 0)
        self._ddp: torch.nn.Module = (
            DistributedDataParallel(
                self.model, broadcast_buffers=False, gradient_as_bucket_view=True
            )
            if world_size > 1
            else self.model
        )
        self._names: dict[torch.Tensor, str] = {
            p: name for name, p in self.model.named_parameters() if p.requires_grad
        }
        decayed = [p for p in self._names if p.ndim >= 2]
        plain = [p for p in self._names if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision.scaler)
        # fp32 weights are multiplied in TF32 on matrix units only where the spec says so.
        torch.set_float32_matmul_precision("high" if precision.precision == "tf32" else "highest")

    def train(self, checkpoints: CheckpointFolder) -> None:
        """Run all steps, from the newest checkpoint that verifies if there is one.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing is saved after it.
        """
        done = self._resume(checkpoints)
        window = self._new_window()
        last = len(self.steps)
        for planned in self.steps[done:]:
            self._step(planned, window)
            step = planned.step
            evaluates = self._evaluates_after(planned)
            saves = step % self.settings.checkpoint_every == 0 and step < last
            if step % LOG_EVERY == 0 or evaluates or saves or step == last:
                self._report_window(planned, window)
                window = self._new_window()
            if evaluates:
                began = time.perf_counter()
                metrics = self.evaluate()
                seconds = time.perf_counter() - began
                self._report(
                    "evaluated", step=step, data="evaluation", metrics=metrics, seconds=seconds
                )
                window.since = time.perf_counter()
            if saves:
                self._save(checkpoints, step)
                window.since = time.perf_counter()

    def evaluate(self) -> dict[str, Any]:
        """Score the evaluation split, each rank its share; all ranks get the metrics."""
        import torch

        split = self.evaluation_split
        predicted = torch.zeros(len(split.labels), dtype=torch.int64, device=self.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        longest = bucket_length(int(split.lengths.max()), self.dataset.facts["max_length"])
        batches = make_batches(
            split.lengths,
            fingerprint=self.dataset.fingerprint,
            seed=0,
            epoch=0,
            max_tokens=max(self.settings.max_tokens, longest),
            max_length=self.dataset.facts["max_length"],
        )
        self.model.eval()
        with torch.inference_mode():
            for batch in batches[self.rank :: self.world_size]:
                inputs, targets = self._tensors(split, batch.rows, batch.longest)
                with self._autocast():
                    logits = self.model(**inputs).logits.float()
                loss += torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
                predicted[torch.from_numpy(batch.rows).to(self.device)] = logits.argmax(-1)
        self._sum_over_ranks(predicted)
        self._sum_over_ranks(loss)
        metrics = classification_metrics(
            split.labels, predicted.cpu().numpy(), labels=self.dataset.labels
        )
        return {
            "accuracy": metrics.accuracy,
            "macro_f1": metrics.macro_f1,
            "loss": float(loss) / len(split.labels),
        }

    def _step(self, planned: PlannedStep, window: _Window) -> None:
        import torch

        rows = deal(planned.batch, self.rank, self.world_size)
        # A rank without rows still takes part in the all-reduce, with a row of weight zero.
        weight = 1.0 if len(rows) else 0.0
        rows = rows if len(rows) else planned.batch.rows[:1]
        inputs, targets = self._tensors(self.train_split, rows, planned.batch.longest)
        # Masked, since torch takes 64 bits at most.
        mixed = (self.settings.seed * 1_000_003 + planned.step) * 65_537 + self.rank
        torch.manual_seed(mixed & ((1 << 63) - 1))
        self._ddp.train()
        with self._autocast():
            logits = self._ddp(**inputs).logits
        loss = weight * torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        # DDP averages over ranks; the true mean divides by the rows of the global batch.
        mean = loss * self.world_size / len(planned.batch.rows)
        torch.autograd.backward(self.scaler.scale(mean))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._names, self.settings.max_gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = planned.learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        window.loss += loss.detach()
        if self.precision.scaler:
            # The scaler skips a step whose gradients overflow, and lowers its scale.
            norm = norm.nan_to_num(posinf=0.0)
        window.gradient_norm = torch.maximum(window.gradient_norm, norm.detach())
        window.rows += len(planned.batch.rows)
        window.tokens += int(self.train_split.lengths[planned.batch.rows].sum())
        window.padded += planned.batch.longest * len(planned.batch.rows)

    def _report_window(self, planned: PlannedStep, window: _Window) -> None:
        self._sum_over_ranks(window.loss)
        loss, norm = float(window.loss) / window.rows, float(window.gradient_norm)
        scale = float(self.scaler.get_scale())
        if not (math.isfinite(loss) and math.isfinite(norm) and scale >= SMALLEST_SCALE):
            raise NonFiniteError(
                f"step {planned.step}: loss {loss}, gradient norm {norm}, loss scale {scale}",
                hint="lower training.learning_rate, or set precision: fp32",
            )
        self._report(
            "step",
            step=planned.step,
            epoch=planned.epoch,
            loss=loss,
            learning_rate=planned.learning_rate,
            tokens=window.tokens,
            targets=window.rows,
            seconds=time.perf_counter() - window.since,
            padding=1 - window.tokens / window.padded,
            gradient_norm=norm,
        )

    def _evaluates_after(self, planned: PlannedStep) -> bool:
        every = self.settings.evaluate_every
        if planned.step == len(self.steps):
            return True
        return planned.ends_epoch if every is None else planned.step % every == 0

    def _tensors(
        self, split: Split, rows: np.ndarray[Any, Any], length: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        import torch

        arrays = collate(split, rows, length, self.pad_id)
        inputs = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        return inputs, torch.from_numpy(split.labels[rows]).to(self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if not self.precision.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision.torch_dtype)

    def _new_window(self) -> _Window:
        import torch

        zero = torch.zeros((), device=self.device)
        return _Window(loss=zero.clone(), gradient_norm=zero, since=time.perf_counter())

    def _sum_over_ranks(self, tensor: torch.Tensor) -> None:
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)

    def _save(self, checkpoints: CheckpointFolder, step: int) -> None:
        if self.rank != 0:
            return
        started = time.perf_counter()
        optimizer = {
            f"{key}/{self._names[parameter]}": value.detach().cpu().contiguous()
            for parameter, values in self.optimizer.state.items()
            for key, value in values.items()
        }
        model = {name: t.detach().cpu().contiguous() for name, t in self.model.state_dict().items()}
        folder = checkpoints.save(
            step,
            model=model,
            optimizer=optimizer,
            state={
                "num_steps": len(self.steps),
                "fingerprint": self.dataset.fingerprint,
                "world_size": self.world_size,
                "scaler": self.scaler.state_dict(),
            },
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        seconds = time.perf_counter() - started
        self._report("checkpoint", step=step, path=folder.name, size_bytes=size, seconds=seconds)

    def _resume(self, checkpoints: CheckpointFolder) -> int:
        found = checkpoints.newest() if self.rank == 0 else None
        if self.world_size > 1:
            import torch
            import torch.distributed

            step = torch.tensor(found.step if found else 0, device=self.device)
            torch.distributed.broadcast(step, src=0)
            if self.rank != 0 and step:
                found = checkpoints.at(int(step))
        if found is None:
            return 0
        model, optimizer, state = found.load()
        self.model.load_state_dict(model)
        for parameter, name in self._names.items():
            self.optimizer.state[parameter] = {
                key: optimizer[f"{key}/{name}"].to(self.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.scaler.load_state_dict(state["scaler"])
        self._report(
            "resumed", step=found.step, path=found.folder.name, ignored=list(found.ignored)
        )
        return int(state["step"])


def _silent(event: EventKind, **fields: Any) -> None:
    """Report nothing: ranks other than 0."""
