"""Floating-point operations: what a token costs, and what a chip could do at most."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from kovar.precision import Precision


def flops_per_token(
    model: torch.nn.Module, *, output: torch.nn.Module | None = None, output_share: float = 1.0
) -> int:
    """Return the operations of one token's forward and backward pass, in FLOP.

    Six per weight that a token is multiplied with (Kaplan et al. 2020, arXiv:2001.08361, section
    2.1), four per frozen one, which has no gradient. Look-ups in embedding tables cost none;
    attention scores, which depend on the length, are left out, so the true figure is a little
    higher.

    Args:
        model: as it is trained.
        output: its layer onto the vocabulary, if it has one.
        output_share: share of the tokens that this layer computes.
    """
    import torch

    return round(
        sum(
            (6 if weight.requires_grad else 4)
            * weight.numel()
            * (output_share if module is output else 1.0)
            for module in model.modules()
            if not isinstance(module, torch.nn.Embedding)
            for weight in module.parameters(recurse=False)
            if weight.ndim >= 2
        )
    )


def peak_flops(chip: str, precision: Precision) -> float | None:
    """Return the published peak of a chip in FLOP/s, None where nobody publishes it.

    Args:
        chip: as the driver names it, for example "NVIDIA H100 80GB HBM3".
        precision: what matrices are multiplied in.
    """
    from kovar.resources.accelerators import ACCELERATORS

    words = set(re.split(r"[^A-Za-z0-9.]+", chip))
    known = [entry for name, entry in ACCELERATORS.items() if name in words]
    return known[0].flops.get(precision) if known else None
