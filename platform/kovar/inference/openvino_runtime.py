"""A version's export run by OpenVINO on a CPU; imports no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import MissingExtraError, ModelError
from kovar.inference.classifier_runtime import ClassifierRuntime
from kovar.inference.exports.form import EMBEDDING, LOGITS
from kovar.inference.onnx_runtime import feeds
from kovar.inference.reader import Padded, Reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kovar.inference.attributor import Attributor

_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision → what OpenVINO computes in where the file says fp32; left alone it chooses itself."""
LENGTH_STEP: Final = 8


class OpenVinoRuntime(ClassifierRuntime):
    """A classifier of texts in an ONNX file, compiled by OpenVINO.

    Args:
        reader: turns texts into token ids.
        compiled: OpenVINO's compiled model.
        precision: that it computes in.
        load_attributor: loads what explains answers, through torch.
    """

    name = "openvino"

    def __init__(
        self,
        reader: Reader,
        compiled: Any,
        *,
        precision: str,
        load_attributor: Callable[[], Attributor],
    ) -> None:
        super().__init__(reader, precision=precision, load_attributor=load_attributor)
        # Each new shape is compiled when it is first seen: a few lengths are soon all known.
        self.length_step = LENGTH_STEP if self.max_length % LENGTH_STEP == 0 else 1
        self._compiled = compiled
        self._own = threading.local()
        self._inputs = [one.get_any_name() for one in compiled.inputs]

    def logits(self, inputs: Padded) -> NDArray[np.float32]:
        """Run the model; see `ClassifierRuntime.logits`."""
        return self._run(inputs, LOGITS)

    def pooled(self, inputs: Padded) -> NDArray[np.float32]:
        """Run the model; see `ClassifierRuntime.pooled`."""
        return self._run(inputs, EMBEDDING)

    def _run(self, inputs: Padded, output: str) -> NDArray[np.float32]:
        import numpy as np

        if not hasattr(self._own, "request"):  # a request takes one batch at a time
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer(feeds(inputs, self._inputs), share_inputs=True)
        # A copy: the next batch is written to the same memory.
        table: NDArray[np.float32] = np.array(found[output], dtype=np.float32)
        return table


def compile_model(
    path: Path, *, precision: str, num_threads: int | None, num_parallel: int = 1
) -> Any:
    """Compile an export for this CPU.

    Args:
        path: the ONNX file.
        precision: fp32, bf16 or int8.
        num_threads: CPU threads of one batch; the library's own choice when absent.
        num_parallel: batches that run at a time.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: it cannot run the file.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError.of("openvino", needed_for="runtime: openvino") from None
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
    }
    if num_threads is not None:
        config["INFERENCE_NUM_THREADS"] = num_threads * num_parallel
    if num_parallel > 1:
        config["NUM_STREAMS"] = num_parallel
    try:
        return openvino.Core().compile_model(str(path), "CPU", config)
    except RuntimeError as problem:
        raise ModelError(
            f"OpenVINO cannot run the export: {str(problem).splitlines()[0][:200]}", file=path
        ) from None
