"""How much memory one replica needs: computed from config.json, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kovar.inference.batcher import BatchLimits
from kovar.models.forward import FP32_BYTES, Arithmetic, DeviceKind
from kovar.models.liveness import inference_moments
from kovar.models.recorder import record
from kovar.models.size import ModelSize, model_size

MiB: Final = 1 << 20

ACCELERATOR_RUNTIME_BYTES: Final[dict[str, int]] = {
    # The CUDA context (300 to 500 MiB from Volta to Hopper) and the workspace of cuBLAS, 8 MiB,
    # on Hopper 32 MiB: https://docs.nvidia.com/cuda/cublas/#results-reproducibility. Not measured.
    "cuda": 550 * MiB,
    # XLA reserves no context on the chip: the compiled program, taken as small. Not measured.
    "xla": 64 * MiB,
}

REPLICA_BYTES: Final = 528 * MiB
"""Resident memory of a Ray actor on a CPU with what a replica imports, after one prediction.

Measured with Ray 2.60, torch 2.13 and transformers 5.23, on a tiny model.
"""

WEIGHT_BYTES: Final[dict[str, int]] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True)
class ServingMemory:
    """Bytes that one replica needs, of the accelerator where there is one, else of the host.

    Args:
        weights: the model at its precision.
        activations: the largest batch's tensors at the moment when the most are alive.
        kv_cache: keys and values of all rows at their longest; 0 for a classifier.
        loading: what the weights take in the file's fp32 until they are cast, on a CPU.
        runtime: torch, Ray Serve and their libraries; a GPU's context.
    """

    weights: int
    activations: int
    kv_cache: int
    loading: int
    runtime: int

    @property
    def total(self) -> int:
        """The larger of loading and serving."""
        return self.runtime + max(self.loading, self.weights + self.activations + self.kv_cache)


def kv_cache_bytes(size: ModelSize, *, itemsize: int) -> int:
    """Return the bytes of keys and values of one token, in all layers.

    Grouped-query attention has fewer heads of them (https://arxiv.org/abs/2305.13245). A sliding
    window, which forgets old tokens, is not considered: with one this is an upper bound.
    """
    return 2 * size.num_layers * size.num_kv_heads * size.head_dim * itemsize


def estimate_serving(
    config: Mapping[str, Any],
    limits: BatchLimits,
    *,
    max_length: int,
    num_labels: int | None,
    precision: str,
    device_kind: DeviceKind,
) -> ServingMemory | None:
    """Estimate the memory of one replica.

    Args:
        config: content of config.json.
        limits: what one batch may hold.
        max_length: longest row in tokens, for generation with what is generated.
        num_labels: classes; None for a decoder that generates.
        precision: as resolved, for example "bf16"; the weights are cast to it.
        device_kind: torch's name of the device.

    Returns:
        None when the architecture or its activation function is not known.
    """
    size = model_size(config, num_labels=num_labels)
    if size is None:
        return None
    recording = record(
        config,
        size,
        length=max_length,
        arithmetic=Arithmetic.serving(precision),
        device=device_kind,
        training=False,
    )
    if recording is None:
        return None
    tokens = max(max_length, min(limits.max_rows * max_length, limits.max_tokens))
    itemsize = WEIGHT_BYTES[precision]
    weights = size.total * itemsize
    generates = size.decoder and num_labels is None
    cache = kv_cache_bytes(size, itemsize=max(2, itemsize)) if generates else 0
    on_cpu = device_kind == "cpu"
    return ServingMemory(
        weights=weights,
        activations=limits.parallel
        * round(max(one.at(tokens) for one in inference_moments(recording))),
        kv_cache=cache * limits.max_rows * max_length,
        loading=size.total * FP32_BYTES if on_cpu else weights,
        runtime=REPLICA_BYTES if on_cpu else ACCELERATOR_RUNTIME_BYTES[device_kind],
    )
