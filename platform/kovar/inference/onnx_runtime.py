"""A version's export run by ONNX Runtime, on a CPU or an NVIDIA GPU; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kovar.errors import MissingExtraError, ModelError, SpecError
from kovar.inference.classifier_runtime import ClassifierRuntime
from kovar.inference.exports.form import EMBEDDING, LOGITS
from kovar.inference.reader import Padded, Reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kovar.inference.attributor import Attributor

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

Provider = tuple[str, dict[str, str]]
"""What computes in ONNX Runtime, and its options."""

_ERROR_LEVEL: Final = 3


class OnnxRuntime(ClassifierRuntime):
    """A classifier of texts in an ONNX file.

    Args:
        reader: turns texts into token ids.
        session: ONNX Runtime's session of the file.
        precision: that the file computes in.
        load_attributor: loads what explains answers, through torch.
    """

    name = "onnx"

    def __init__(
        self,
        reader: Reader,
        session: Any,
        *,
        precision: str,
        load_attributor: Callable[[], Attributor],
    ) -> None:
        super().__init__(reader, precision=precision, load_attributor=load_attributor)
        self._session = session
        self._inputs = [one.name for one in session.get_inputs()]

    @property
    def provider(self) -> str:
        """What computes, for example `CPUExecutionProvider`."""
        found: str = self._session.get_providers()[0]
        return found

    def logits(self, inputs: Padded) -> NDArray[np.float32]:
        """Run the file; see `ClassifierRuntime.logits`."""
        return self._run(inputs, LOGITS)

    def pooled(self, inputs: Padded) -> NDArray[np.float32]:
        """Run the file; see `ClassifierRuntime.pooled`."""
        return self._run(inputs, EMBEDDING)

    def _run(self, inputs: Padded, output: str) -> NDArray[np.float32]:
        import numpy as np

        (found,) = self._session.run([output], feeds(inputs, self._inputs))
        table: NDArray[np.float32] = found.astype(np.float32, copy=False)
        return table


def feeds(inputs: Padded, names: Sequence[str]) -> dict[str, Any]:
    """Return the tensors that an export asks for."""
    import numpy as np

    made: dict[str, Callable[[], Any]] = {
        "input_ids": lambda: inputs.ids,
        "attention_mask": inputs.whole_mask,
        "token_type_ids": lambda: (
            np.zeros_like(inputs.ids) if inputs.types is None else inputs.types
        ),
    }
    return {name: made[name]() for name in names}


def open_session(
    path: Path,
    *,
    device: Literal["cpu", "cuda"],
    num_threads: int | None,
    max_length: int,
    engines: Path | None = None,
    num_parallel: int = 1,
) -> Any:
    """Open an export in ONNX Runtime.

    Args:
        path: the file.
        device: kind of chip.
        num_threads: CPU threads of one batch; the library's own choice when absent.
        max_length: longest row.
        engines: folder that TensorRT keeps its compiled engines in; without one it is not used,
            because it would compile for minutes at each start.
        num_parallel: batches that run at a time.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: it cannot run the file.
        SpecError: the installed one does not compute on GPUs.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError.of("onnx", needed_for="runtime: onnx") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_LEVEL
    if num_threads is not None:
        # The thread that calls computes too; the others are shared by all batches under way.
        options.intra_op_num_threads = (num_threads - 1) * num_parallel + 1
    # Threads that wait by spinning take the cores of the proxy and of other replicas.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    try:
        tensorrt = None
        if device == "cuda" and TENSORRT in available and engines is not None:
            engines.mkdir(parents=True, exist_ok=True)
            tensorrt = tensorrt_options(engines, inputs=input_names(path), max_length=max_length)
        providers = choose_providers(device, available, tensorrt=tensorrt)
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except SpecError:
        raise
    except Exception as problem:  # the library's exceptions have no common class
        raise ModelError(
            f"ONNX Runtime cannot run the export: {str(problem).splitlines()[0][:200]}", file=path
        ) from None
    # A provider that cannot start is left out by ONNX Runtime, which goes on with the next one.
    if device == "cuda" and session.get_providers()[0] == CPU:
        raise SpecError(
            "ONNX Runtime cannot start its CUDA provider on this machine",
            field="runtime",
            got="onnx",
            hint="install the CUDA and cuDNN that this onnxruntime-gpu was built for, "
            "or take runtime: torch",
        )
    return session


def choose_providers(
    device: Literal["cpu", "cuda"],
    available: Sequence[str],
    *,
    tensorrt: dict[str, str] | None = None,
) -> list[Provider]:
    """Return what computes, the first choice first.

    Args:
        device: kind of chip.
        available: what the installed ONNX Runtime was built with.
        tensorrt: options of TensorRT, where it is to compute what it can.

    Raises:
        SpecError: GPUs are wanted, and it was built without them.
    """
    if device == "cpu":
        return [(CPU, {})]
    if CUDA not in available:
        raise SpecError(
            "the installed ONNX Runtime does not compute on GPUs",
            field="runtime",
            got="onnx",
            hint="pip uninstall onnxruntime; pip install onnxruntime-gpu, or take runtime: torch",
        )
    chosen: list[Provider] = [(CUDA, {}), (CPU, {})]
    if tensorrt is not None:
        chosen.insert(0, (TENSORRT, tensorrt))
    return chosen


def input_names(path: Path) -> list[str]:
    """Return the names of an export's inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=[CPU])
    return [one.name for one in session.get_inputs()]


def tensorrt_options(engines: Path, *, inputs: Sequence[str], max_length: int) -> dict[str, str]:
    """Return what lets TensorRT compile once for all shapes.

    Source: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html

    Args:
        engines: folder that it keeps its compiled engines in.
        inputs: names of the export's inputs, each of shape (rows, tokens).
        max_length: longest row.
    """

    def shapes(rows: int, tokens: int) -> str:
        return ",".join(f"{name}:{rows}x{tokens}" for name in inputs)

    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_profile_min_shapes": shapes(1, 1),
        "trt_profile_opt_shapes": shapes(32, min(64, max_length)),
        "trt_profile_max_shapes": shapes(256, max_length),
    }
