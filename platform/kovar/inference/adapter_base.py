"""A base that many adapters share on one chip: loaded once, each adapter in a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kovar.errors import SpecError
from kovar.inference.golden import GOLDEN_TOLERANCE, verify_golden
from kovar.inference.reader import Reader, embedding_size_of
from kovar.inference.runtime import RuntimePrecision
from kovar.inference.torch_model import TorchModel
from kovar.inference.torch_runtime import TorchRuntime
from kovar.models import SharedBase, check_folder
from kovar.precision import ResolvedPrecision, detect_device, resolve

if TYPE_CHECKING:
    import torch


@dataclass
class AdapterBase:
    """The weights that adapters of one base share, and what makes a runtime of each of them.

    Args:
        folder: the base's files.
        shared: its weights.
        precision: of the weights.
        device: kind of chip.
        max_positions: tokens that a text may have at most.
    """

    folder: Path
    shared: SharedBase
    precision: ResolvedPrecision
    device: Literal["cpu", "cuda"]
    max_positions: int
    _exact: SharedBase | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        precision: RuntimePrecision = "auto",
        device: Literal["cpu", "cuda"] = "cpu",
        num_threads: int | None = None,
    ) -> AdapterBase:
        """Load a base.

        Args:
            folder: its files.
            precision: number format; auto takes what is fastest on the chip.
            device: kind of chip.
            num_threads: CPU threads of the whole process; torch's own choice when absent.

        Raises:
            ModelError: a file is missing or damaged.
            SpecError: the device cannot compute at this precision.
        """
        import torch

        found = detect_device(device)
        resolved = None if precision == "int8" else resolve(precision, found)
        if resolved is None or resolved.precision not in GOLDEN_TOLERANCE:
            raise SpecError(
                "adapters are not computed at this precision", field="precision", got=precision
            )
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        if resolved.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        shared = SharedBase.load(folder, device=device, dtype=resolved.torch_dtype)
        files = check_folder(folder, source=str(folder))
        return cls(folder, shared, resolved, device, files.max_positions)

    @property
    def module(self) -> torch.nn.Module:
        """The base's model."""
        module: torch.nn.Module = self.shared.model
        return module

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        return int(self.shared.model.config.vocab_size)

    @property
    def embedding_size(self) -> int:
        """Width of the last hidden states."""
        return embedding_size_of(self.shared.model.config.to_dict())

    def adapt(self, folder: Path, *, merge: bool = False) -> TorchRuntime:
        """Load an adapter over the base and check it against its golden examples.

        It may run in any thread, beside runtimes that answer.

        Args:
            folder: the adapter's files.
            merge: see `SharedBase.adapt`.

        Raises:
            GoldenError: it does not answer as it was evaluated, or has no examples.
            ModelError: a file is damaged, or the adapter belongs to another base.
        """
        reader = Reader.of(folder, base_folder=self.folder)
        model = self.shared.adapt(folder, merge=merge)
        loaded = TorchModel(model, reader, self.precision.precision)

        def exact() -> TorchModel:
            return TorchModel(self._in_fp32().adapt(folder), reader, "fp32")

        runtime = TorchRuntime(loaded, load_exact=exact)
        verify_golden(runtime, folder)
        return runtime

    def _in_fp32(self) -> SharedBase:
        """Return the base in fp32, for attributions; loaded once, when they are first asked for."""
        import torch

        if self._exact is None:
            self._exact = SharedBase.load(self.folder, device=self.device, dtype=torch.float32)
        return self._exact
