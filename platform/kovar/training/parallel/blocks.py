"""The transformer blocks of a model: what is gathered, freed and compiled one at a time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def transformer_blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the members of the outermost module lists, in the order of the model.

    A block that shares a weight with the rest of the model is not among them.
    """
    from torch.nn import ModuleList

    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, ModuleList)
    }
    outermost = [
        members
        for name, members in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists if other != name)
    ]
    holders = Counter(
        id(weight) for module in model.modules() for weight in module.parameters(recurse=False)
    )

    def is_closed(block: torch.nn.Module) -> bool:
        within = Counter(
            id(weight) for module in block.modules() for weight in module.parameters(recurse=False)
        )
        return bool(within) and all(holders[key] == count for key, count in within.items())

    return [block for members in outermost for block in members if is_closed(block)]
