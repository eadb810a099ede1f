"""Embeddings trained on CPUs: the gradient of a table is kept, and only its touched rows cleared.

A batch touches a few hundred of a vocabulary's rows, yet torch makes a new gradient of the whole
table in every step: 47 MB for MiniLM, whose pages the system has to find and clear each time. That
took between 2 and 10 % of the step, as the system's memory stood.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def quicken_embeddings(model: torch.nn.Module) -> None:
    """Let the embeddings of a model that is trained on a CPU keep their gradients' memory.

    A table that another module uses too (a tied head) stays as it is: its gradient is dense. The
    model's parameters, buffers and names do not change. The gradient is written straight into the
    parameter's `grad`, so a hook on the parameter's own gradient does not see it.
    """
    from torch import nn

    quick = _embedding_module()
    uses = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    for module in model.modules():
        if type(module) is not nn.Embedding or uses[id(module.weight)] > 1:
            continue
        if module.weight.requires_grad and module.max_norm is None and not module.sparse:
            module.__class__ = quick
            table: Any = module
            table._gradient, table._touched = None, []


@cache
def _embedding_module() -> type[torch.nn.Embedding]:
    """Define the module when torch is there."""
    import torch
    from torch import nn

    class QuickEmbedding(nn.Embedding):
        _gradient: torch.Tensor | None
        _touched: list[torch.Tensor]

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            if not (self.training and torch.is_grad_enabled()) or self.scale_grad_by_freq:
                return super().forward(input)
            look_up: Any = LookUp
            rows: torch.Tensor = look_up.apply(self.weight, input, self)
            return rows

        def add(self, rows: torch.Tensor, gradients: torch.Tensor) -> None:
            """Add gradients of different rows to the table's."""
            weight = self.weight
            if weight.grad is None:
                if self._gradient is None:
                    self._gradient = torch.zeros_like(weight)
                for touched in self._touched:
                    self._gradient.index_fill_(0, touched, 0.0)
                self._touched = []
                weight.grad = self._gradient
            self._touched.append(rows)
            weight.grad.index_add_(0, rows, gradients.to(weight.dtype))

    class LookUp(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, weight: torch.Tensor, ids: torch.Tensor, table: QuickEmbedding
        ) -> torch.Tensor:
            ctx.save_for_backward(ids)
            ctx.table = table
            return nn.functional.embedding(ids, weight, table.padding_idx)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None]:
            (ids,) = ctx.saved_tensors
            rows, places = ids.unique(return_inverse=True)
            summed = torch.ops.aten.embedding_dense_backward(
                gradients[0], places, len(rows), -1, False
            )
            if (padding := ctx.table.padding_idx) is not None:
                summed[rows == padding] = 0.0
            ctx.table.add(rows, summed)
            return None, None, None

    return QuickEmbedding
