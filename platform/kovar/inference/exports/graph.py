"""A version's model traced by torch and written as one ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kovar.config import format_size
from kovar.errors import MissingExtraError, ModelError
from kovar.inference.exports.form import EMBEDDING, INPUTS, LOGITS
from kovar.inference.torch_model import TorchModel, load_torch_model
from kovar.precision import ResolvedPrecision

if TYPE_CHECKING:
    import torch

OPSET: Final = 20
MAX_BYTES: Final = 2 << 30
"""A protocol buffer, which an ONNX file is, holds no more."""

_DTYPES: Final = {"fp32": "float32", "fp16": "float16"}


def write_graph(
    folder: Path,
    path: Path,
    *,
    precision: Literal["fp32", "fp16"] = "fp32",
    base_folder: Path | None = None,
) -> None:
    """Trace a classifier of texts, for any number of rows and tokens, and write it.

    The file has the inputs `input_ids`, `attention_mask` and, where the model reads them,
    `token_type_ids` (int64, shape (rows, tokens)), and the outputs `logits` (rows, labels) and
    `text_embedding` (rows, size), the mean of the last hidden states over the tokens.

    Args:
        folder: the files of the version.
        path: the file to write.
        precision: of weights and outputs.
        base_folder: files of the version that an adapter was trained on.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ModelError: the model is too large for one file, or torch cannot trace it.
    """
    _check_extra()
    resolved = ResolvedPrecision(precision, _DTYPES[precision], False, False, "the export's")
    loaded = load_torch_model(folder, precision=resolved, base_folder=base_folder)
    size = sum(weight.nbytes for weight in loaded.model.parameters())
    if size > MAX_BYTES * 0.95:
        raise ModelError(
            f"the model has {format_size(size)} of weights; one ONNX file holds "
            f"{format_size(MAX_BYTES)}",
            file=folder,
            hint="serve it with runtime: torch",
        )
    # Plain attention: ONNX Runtime finds and fuses it, and torch's own fused one has no ONNX form.
    loaded.model.set_attn_implementation("eager")
    program = _trace(loaded, folder)
    _write(program, path)


def _check_extra() -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        raise MissingExtraError.of("onnx", needed_for="an ONNX export")


def _trace(loaded: TorchModel, folder: Path) -> Any:
    import torch

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = loaded.model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> tuple[torch.Tensor, torch.Tensor]:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            found = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                output_hidden_states=True,
                **types,
            )
            hidden = found.hidden_states[-1]
            mask = attention_mask.to(hidden.dtype)[..., None]
            return found.logits, (hidden * mask).sum(dim=1) / mask.sum(dim=1)

    names = INPUTS if loaded.reader.has_types else INPUTS[:2]
    ids = torch.ones(2, min(8, loaded.max_length), dtype=torch.int64)
    inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(names)]
    free = torch.export.Dim.DYNAMIC
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                Exported().eval(),
                inputs,
                dynamo=True,
                input_names=list(names),
                output_names=[LOGITS, EMBEDDING],
                dynamic_shapes=({0: free, 1: free},) * len(names),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as problem:  # tracing raises whatever the model's code provokes
        raise ModelError(
            f"torch cannot trace this model for ONNX: {type(problem).__name__}",
            file=folder,
            hint="serve it with runtime: torch",
        ) from problem


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer: it warns of its own deprecations and of libraries that are absent."""
    loggers = [logging.getLogger(name) for name in ("torch", "torchao", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write(program: Any, path: Path) -> None:
    import onnx

    model = program.model_proto
    # Where the tracer's code lies on this machine is not part of the model.
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        del part.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    model.doc_string = ""
    onnx.save(model, str(path))
