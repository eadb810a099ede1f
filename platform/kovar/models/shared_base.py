"""A base in memory once, and the classifiers that adapters make of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.models.adapter import another_base, read_adapter
from kovar.models.base import check_folder
from kovar.models.classifier import load_with_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_PREFIX: Final = "base_model.model."
_LOW_RANK: Final = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector")


@dataclass(frozen=True)
class SharedBase:
    """The weights of a base, which every adapter's model refers to and none changes.

    Args:
        model: the base with a head that no adapter uses, in evaluation mode.
        fresh: names of weights that the base's files do not hold.
    """

    model: PreTrainedModel
    fresh: frozenset[str]

    @classmethod
    def load(cls, folder: Path, *, device: str, dtype: torch.dtype) -> SharedBase:
        """Load a base.

        Args:
            folder: its files.
            device: torch's name of the device.
            dtype: number format of the weights.

        Raises:
            ModelError: a file is missing or damaged.
        """
        import torch
        from transformers import AutoConfig

        files = check_folder(folder, source=str(folder))
        config = AutoConfig.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=False
        )
        with torch.random.fork_rng(devices=[]):
            model, missing, mismatched = load_with_config(
                files.folder, config, "sequence-classification"
            )
        ready = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        return cls(ready, frozenset(missing | mismatched))

    def adapt(self, folder: Path, *, merge: bool = False) -> PreTrainedModel:
        """Return the classifier that an adapter makes of the base; only what it adds is new.

        Args:
            folder: the adapter, as `save_adapter` wrote it.
            merge: give each layer that it changes a weight of its own, which computes faster.

        Raises:
            ModelError: a file is damaged, or the adapter belongs to another base.
        """
        from transformers import AutoConfig

        stored = read_adapter(folder)
        named = {name.removeprefix(_PREFIX): one for name, one in stored.tensors.items()}
        saved = {name: one for name, one in named.items() if not name.endswith(_LOW_RANK)}
        model = self._shell()
        self._put_saved(model, saved, folder)
        low = {name: one for name, one in named.items() if name not in saved}
        scale = stored.fields["lora_alpha"] / stored.fields["r"]
        _put_changes(model, low, scale, folder, merge=merge)
        model.config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return model

    def _shell(self) -> PreTrainedModel:
        """Copy the modules and none of their tensors."""
        model = self.model
        shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
        return copy.deepcopy(model, shared)

    def _put_saved(
        self, model: PreTrainedModel, saved: Mapping[str, torch.Tensor], folder: Path
    ) -> None:
        """Put what was trained in full, the head above all, in the place of the base's."""
        import torch

        known = dict(self.model.named_parameters())
        encoder = f"{model.base_model_prefix}."
        absent = sorted(self.fresh - saved.keys())
        if absent:
            raise another_base(folder, f"the base lacks {absent[0]}")
        for name, tensor in saved.items():
            own = known.get(name)
            if own is None or own.ndim != tensor.ndim:
                raise another_base(folder, f"{name} is absent or of another shape")
            # A head has as many outputs as the adapter has labels, whatever the base was made for.
            if name.startswith(encoder) and own.shape != tensor.shape:
                raise another_base(folder, f"{name} is absent or of another shape")
            module, _, leaf = name.rpartition(".")
            parameter = torch.nn.Parameter(tensor.to(own), requires_grad=False)
            setattr(model.get_submodule(module), leaf, parameter)


def _put_changes(
    model: PreTrainedModel,
    low: Mapping[str, torch.Tensor],
    scale: float,
    folder: Path,
    *,
    merge: bool,
) -> None:
    """Put each change of low rank beside its linear layer, or into it."""
    modules = dict(model.named_modules())
    changes: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in low.items():
        end = next(end for end in _LOW_RANK if name.endswith(end))
        changes.setdefault(name.removesuffix(end), {})[end] = tensor
    for name, parts in changes.items():
        down, up, magnitude = (parts.get(end) for end in _LOW_RANK)
        up = None if up is None else up.float() * scale
        changed = _changed(modules.get(name), down, up, magnitude, merge=merge)
        if changed is None:
            raise another_base(folder, f"{name} is absent or of another shape")
        model.set_submodule(name, changed)


def _changed(
    linear: Any,
    down: torch.Tensor | None,
    up: torch.Tensor | None,
    magnitude: torch.Tensor | None,
    *,
    merge: bool,
) -> torch.nn.Module | None:
    """Return a linear layer with its change; None where the two do not belong together."""
    import torch

    from kovar.models.adapted_linear import AdaptedLinear, merged_linear

    if not isinstance(linear, torch.nn.Linear) or down is None or up is None:
        return None
    if down.shape[1] != linear.in_features or up.shape != (linear.out_features, len(down)):
        return None
    make = merged_linear if merge else AdaptedLinear
    return make(linear, down=down.float(), up=up, magnitude=magnitude)
