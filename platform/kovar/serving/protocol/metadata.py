"""What the Open Inference Protocol tells about the server and its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kovar.serving.protocol.infer import (
    EMBEDDING_OUTPUT,
    IDS_INPUT,
    LABEL_OUTPUT,
    MASK_INPUT,
    PAIR_INPUT,
    SCORES_OUTPUT,
    TEXT_INPUT,
    TRUNCATED_OUTPUT,
    TYPES_INPUT,
)
from kovar.serving.protocol.served import ServedVersion
from kovar.serving.protocol.tensors import BOOL, BYTES, FP32, INT64

EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_repository")


def server_metadata(platform_version: str) -> dict[str, Any]:
    """Answer `GET /v2`."""
    return {"name": "kovar", "version": platform_version, "extensions": list(EXTENSIONS)}


def model_metadata(served: ServedVersion, versions: Sequence[str]) -> dict[str, Any]:
    """Answer `GET /v2/models/{name}`; the labels are in the order of the `scores` output.

    What a client must send, and gets when it names no output, stands in `inputs` and `outputs`;
    what else it may send or name is in the parameters.

    Args:
        served: the version that is described.
        versions: the numbers of all versions of the model that are served.
    """
    return {
        "name": served.model,
        "versions": list(versions),
        "platform": f"kovar_{served.runtime}",
        "inputs": [_tensor(TEXT_INPUT, BYTES, -1)],
        "outputs": [
            _tensor(LABEL_OUTPUT, BYTES, -1),
            _tensor(SCORES_OUTPUT, FP32, -1, len(served.labels)),
        ],
        "parameters": {
            "digest": served.digest,
            "labels": list(served.labels),
            "max_length": served.max_length,
            "precision": served.precision,
            "runtime_reason": served.reason,
            "optional_inputs": [
                _tensor(PAIR_INPUT, BYTES, -1),
                *(_tensor(name, INT64, -1, -1) for name in (IDS_INPUT, MASK_INPUT, TYPES_INPUT)),
            ],
            "optional_outputs": [
                _tensor(TRUNCATED_OUTPUT, BOOL, -1),
                _tensor(EMBEDDING_OUTPUT, FP32, -1, served.embedding_size),
            ],
        },
    }


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}
