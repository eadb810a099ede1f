"""What one trial could leave behind in a process that runs another one after it.

A trial's result must not depend on the trials before it in the same process. Each leaves the
process in the state in which it found it, and gives its memory back.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_SWITCHES: Final = (
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cudnn.benchmark",
    "backends.cudnn.deterministic",
    "backends.cudnn.enabled",
    "backends.mkldnn.enabled",
)
"""Settings of torch that are plain attributes."""

_MATH: Final = ("flash", "mem_efficient", "math", "cudnn")
"""Kernels of attention that can be switched off, as torch names them."""


@dataclass(frozen=True)
class ProcessState:
    """Settings of this process and this thread that code of a trial may change.

    Args:
        settings: name → value, as `_read` found them.
    """

    settings: dict[str, Any]

    @classmethod
    def capture(cls) -> Self:
        """Look at the process as it is."""
        return cls(_read())

    def restore(self) -> None:
        """Bring the process back into this state."""
        before = self.settings
        _restore_python(before)
        _restore_torch(before)
        if "transformers.utils.logging" in sys.modules:
            from transformers.utils import logging

            logging.set_verbosity(before.get("verbosity", logging.WARNING))

    def changed(self) -> list[str]:
        """Return the names of settings that differ now; generators are compared by their state."""
        now = _read()
        return sorted(
            name for name, value in self.settings.items() if not _equal(value, now.get(name))
        )


def _equal(one: Any, other: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple) and any(isinstance(part, np.ndarray) for part in one):
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _read() -> dict[str, Any]:
    import numpy as np
    import torch

    found: dict[str, Any] = {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "warnings": list(warnings.filters),
        "python_generator": random.getstate(),
        "numpy_generator": np.random.get_state(),
        "numpy_errors": np.geterr(),
        "torch_generator": torch.get_rng_state(),
        "num_threads": torch.get_num_threads(),
        "default_dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "autocast_cache": torch.is_autocast_cache_enabled(),
    }
    for device in ("cpu", "cuda"):
        found[f"autocast_{device}"] = torch.is_autocast_enabled(device)
        found[f"autocast_dtype_{device}"] = torch.get_autocast_dtype(device)
    for name in _SWITCHES:
        found[name] = _holder(name)[0]
    for name in _MATH:
        found[f"sdp_{name}"] = getattr(torch.backends.cuda, f"{name}_sdp_enabled")()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda_generator"] = torch.cuda.get_rng_state()
    if "transformers.utils.logging" in sys.modules:
        from transformers.utils import logging

        found["verbosity"] = logging.get_verbosity()
    return found


def _holder(name: str) -> tuple[Any, Any, str]:
    """Return a switch of torch: its value, what holds it, and its name there."""
    import torch

    *path, last = name.split(".")
    holder: Any = torch
    for part in path:
        holder = getattr(holder, part)
    return getattr(holder, last), holder, last


def _restore_python(before: dict[str, Any]) -> None:
    import numpy as np

    for name in os.environ.keys() - before["environment"].keys():
        del os.environ[name]
    os.environ.update(before["environment"])
    if str(Path.cwd()) != before["folder"]:
        os.chdir(before["folder"])
    warnings.filters[:] = before["warnings"]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    random.setstate(before["python_generator"])
    np.random.set_state(before["numpy_generator"])
    np.seterr(**before["numpy_errors"])


def _restore_torch(before: dict[str, Any]) -> None:
    import torch

    torch.set_rng_state(before["torch_generator"])
    if torch.get_num_threads() != before["num_threads"]:
        torch.set_num_threads(before["num_threads"])
    torch.set_default_dtype(before["default_dtype"])
    torch.set_grad_enabled(before["gradients"])
    torch.autograd.set_detect_anomaly(before["anomalies"])
    torch.use_deterministic_algorithms(
        before["deterministic"], warn_only=before["deterministic_warns"]
    )
    torch.set_float32_matmul_precision(before["matmul_precision"])
    torch.set_autocast_cache_enabled(before["autocast_cache"])
    torch.clear_autocast_cache()
    for device in ("cpu", "cuda"):
        torch.set_autocast_enabled(device, before[f"autocast_{device}"])
        torch.set_autocast_dtype(device, before[f"autocast_dtype_{device}"])
    for name in _SWITCHES:
        value, holder, last = _holder(name)
        if value != before[name]:
            setattr(holder, last, before[name])
    for name in _MATH:
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(before[f"sdp_{name}"])
    if "cuda_generator" in before:
        torch.cuda.set_rng_state(before["cuda_generator"])


@contextmanager
def isolated(device_type: str) -> Iterator[None]:
    """Run a trial in the block, and leave nothing of it behind."""
    before = ProcessState.capture()
    try:
        yield
    finally:
        before.restore()
        give_memory_back(device_type)


def give_memory_back(device_type: str) -> None:
    """Free what a trial has held: on the GPU, and in the heap of the process."""
    import ctypes
    import gc

    from kovar.training.shrinking import free_cached

    free_cached(device_type)
    # What is left are modules and the like: looking at them after every trial takes half a second.
    gc.freeze()
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc's; freed pieces between others would stay with the process
            trim(0)
