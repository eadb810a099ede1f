"""A version run by PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kovar.inference.attributor import Attributor
from kovar.inference.classifier_runtime import ClassifierRuntime
from kovar.inference.reader import Padded
from kovar.inference.torch_model import TorchModel

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class TorchRuntime(ClassifierRuntime):
    """A classifier of texts under `torch.inference_mode`, with fused attention (sdpa).

    Args:
        loaded: the classifier and its tokenizer.
        load_exact: loads the version again in fp32, for attributions; not needed where it is.
        compiled: compile the model with torch.compile, for any number of rows and tokens.
        backend: of torch.compile.
    """

    name = "torch"

    def __init__(
        self,
        loaded: TorchModel,
        *,
        load_exact: Callable[[], TorchModel] | None = None,
        compiled: bool = False,
        backend: str = "inductor",
    ) -> None:
        exact = loaded.precision in ("fp32", "tf32") or load_exact is None

        def attributor() -> Attributor:
            return Attributor(loaded if exact or load_exact is None else load_exact())

        super().__init__(loaded.reader, precision=loaded.precision, load_attributor=attributor)
        self._loaded = loaded
        self._model: Any = loaded.model
        self._encoder: Any = loaded.model.base_model
        self._device = loaded.device
        self._compiled = compiled
        if compiled:
            import torch

            self._model = torch.compile(loaded.model, dynamic=True, backend=backend)

    @property
    def module(self) -> torch.nn.Module:
        """The model as it was loaded."""
        module: torch.nn.Module = self._loaded.model
        return module

    def logits(self, inputs: Padded) -> NDArray[np.float32]:
        """Run the model; see `ClassifierRuntime.logits`."""
        import torch

        with torch.inference_mode():
            found = self._model(**self._tensors(inputs)).logits
            table: NDArray[np.float32] = found.float().cpu().numpy()
        return table

    def pooled(self, inputs: Padded) -> NDArray[np.float32]:
        """Run the encoder; see `ClassifierRuntime.pooled`."""
        import torch

        with torch.inference_mode():
            hidden = self._encoder(**self._tensors(inputs))[0].float()
            table: NDArray[np.float32] = mean_over_tokens(hidden, inputs).cpu().numpy()
        return table

    def _tensors(self, inputs: Padded) -> dict[str, torch.Tensor | None]:
        import torch

        def put(values: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(values).to(self._device, non_blocking=True)

        # Attention without a mask takes the faster kernel; one compiled program has a mask always.
        mask = inputs.whole_mask() if self._compiled else inputs.mask
        tensors: dict[str, torch.Tensor | None] = {
            "input_ids": put(inputs.ids),
            "attention_mask": None if mask is None else put(mask),
        }
        if inputs.types is not None:
            tensors["token_type_ids"] = put(inputs.types)
        return tensors


def mean_over_tokens(hidden: torch.Tensor, inputs: Padded) -> torch.Tensor:
    """Return the mean of hidden states over each row's tokens, shape (rows, size).

    Args:
        hidden: shape (rows, length, size).
        inputs: the batch.
    """
    import torch

    if inputs.mask is None:
        return hidden.mean(dim=1)
    mask = torch.from_numpy(inputs.mask).to(hidden)[..., None]
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
