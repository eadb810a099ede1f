"""Numerical precision, resolved for one chip, with the reason for the choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from kovar.errors import SpecError
from kovar.resources.accelerators import accelerator

if TYPE_CHECKING:
    import torch

    from kovar.resources import NodeType, Request

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "auto"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

_VOLTA, _AMPERE, _ADA = (7, 0), (8, 0), (8, 9)


@dataclass(frozen=True)
class Device:
    """The chip that computes.

    Args:
        kind: torch's name for it: "cpu", "cuda" (also AMD's) or "xla" (TPU).
        name: what a person calls it.
        bf16_matrix_units: whether it multiplies bf16 matrices faster than fp32 ones.
        capability: CUDA compute capability; None on other chips.
        fp8_matrix_units: whether a TPU multiplies fp8 matrices; a GPU's capability tells for it.
    """

    kind: Literal["cpu", "cuda", "xla"]
    name: str
    bf16_matrix_units: bool
    capability: tuple[int, int] | None = None
    fp8_matrix_units: bool = False


@dataclass(frozen=True)
class ResolvedPrecision:
    """A precision that the chip supports, and what it means for the engine.

    Args:
        precision: what was chosen; never "auto".
        dtype: torch's name of the type that matrices are multiplied in.
        autocast: whether weights stay fp32 and operations are cast to `dtype`.
        scaler: whether gradients need a loss scaler, because `dtype` has a narrow range.
        reason: one sentence for the plan and the model card.
    """

    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp8"]
    dtype: str
    autocast: bool
    scaler: bool
    reason: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's object."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def autocast_dtype(self) -> torch.dtype:
        """What operations are cast to: layers that multiply in fp8 take bf16 and give bf16."""
        import torch

        return torch.bfloat16 if self.precision == "fp8" else self.torch_dtype


def detect_device(
    kind: Literal["cpu", "cuda", "xla"] = "cpu", *, cpuinfo: Path = Path("/proc/cpuinfo")
) -> Device:
    """Describe the chip of this process; torch is imported only for "cuda".

    Raises:
        SpecError: "cuda" is wanted and torch sees no GPU.
    """
    if kind == "cpu":
        return _cpu(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    if kind == "xla":
        return Device("xla", "TPU", bf16_matrix_units=True)
    import torch

    if not torch.cuda.is_available():
        raise SpecError(
            "torch sees no GPU in this process",
            hint="request a GPU for the worker, and install a torch built for it",
        )
    # AMD's numbers look like CUDA capabilities but mean other things.
    capability = None if torch.version.hip else torch.cuda.get_device_capability()
    return Device(
        "cuda",
        torch.cuda.get_device_name(),
        bf16_matrix_units=capability is None or capability >= _AMPERE,
        capability=capability,
    )


def declared_device(
    kind: Literal["cpu", "gpu", "tpu"], accelerator_type: str | None = None
) -> Device | None:
    """Describe the chip that a request names, from a machine that need not have it.

    Args:
        kind: the request's kind; for "cpu" the plan assumes CPUs like this machine's.
        accelerator_type: the request's type, for example "A100" or "v5e".

    Returns:
        None when the request leaves the GPU open or its type is unknown: the worker decides.
    """
    if kind == "cpu":
        return detect_device("cpu")
    known = accelerator(accelerator_type)
    if kind == "tpu":
        fp8 = known is not None and "fp8" in known.flops
        return Device(
            "xla", f"TPU {accelerator_type}", bf16_matrix_units=True, fp8_matrix_units=fp8
        )
    if known is None or known.kind != "gpu":
        return None
    # Every AMD card in the table has bf16 units; what CUDA cards have follows from the capability.
    bf16 = known.capability is None or known.capability >= _AMPERE
    return Device("cuda", known.name, bf16, known.capability)


def _cpu(cpuinfo: str) -> Device:
    """Find AMX among the flags of the first processor.

    AVX512-BF16 alone does not count: its dot products gave 111 GFLOP/s where fp32 gave 150.
    """
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return Device(
        "cpu",
        name[1].strip() if name else "CPU",
        bf16_matrix_units="amx_bf16" in (flags[1].split() if flags else []),
    )


def resolve(precision: Precision, device: Device, *, field: str = "precision") -> ResolvedPrecision:
    """Choose the precision for a chip, or confirm the one that was asked for.

    Args:
        precision: what the spec says; "auto" takes the fastest that trains safely.
        device: the chip.
        field: path of the setting, for messages.

    Raises:
        SpecError: the chip cannot do it; names what it can.
    """
    supported = _supported(device)
    if precision == "auto":
        return supported[_automatic(device)]
    if precision not in supported:
        raise SpecError(
            f"{precision} does not run on {device.name}: {_missing(precision, device)}",
            field=field,
            got=precision,
            allowed=", ".join([*supported, "auto"]),
            hint=f"use auto, which takes {_automatic(device)} here",
        )
    return supported[precision]


def supported_precisions(device: Device) -> tuple[Precision, ...]:
    """Return what a chip computes in."""
    return tuple(_supported(device))


def _automatic(device: Device) -> Precision:
    if device.bf16_matrix_units:
        return "bf16"
    return "fp16" if device.kind == "cuda" and (device.capability or (0, 0)) >= _VOLTA else "fp32"


def _supported(device: Device) -> dict[Precision, ResolvedPrecision]:
    match device.kind:
        case "cpu":
            return _on_cpu(device)
        case "cuda":
            return _on_cuda(device)
        case "xla":
            return _on_tpu(device)


def _on_cpu(device: Device) -> dict[Precision, ResolvedPrecision]:
    if device.bf16_matrix_units:
        fp32 = "fp32: as asked, though this CPU's AMX units are several times as fast in bf16"
        bf16 = (
            "bf16: this CPU has AMX matrix units "
            "(on two such cores 2,226 against 329 GFLOP/s in fp32)"
        )
    else:
        fp32 = (
            "fp32: this CPU has no bf16 matrix units, and without them bf16 is slower "
            "(measured: 137 against 210 GFLOP/s)"
        )
        bf16 = "bf16: as asked, though without matrix units it is slower than fp32 on this CPU"
    return {
        "fp32": ResolvedPrecision("fp32", "float32", False, False, fp32),
        "bf16": ResolvedPrecision("bf16", "bfloat16", True, False, bf16),
    }


def _on_tpu(device: Device) -> dict[Precision, ResolvedPrecision]:
    supported: dict[Precision, ResolvedPrecision] = {
        "fp32": ResolvedPrecision(
            "fp32", "float32", False, False, "fp32: the TPU emulates it on bf16 units"
        ),
        "bf16": ResolvedPrecision(
            "bf16", "bfloat16", True, False, "bf16: what a TPU's matrix units compute in"
        ),
    }
    if device.fp8_matrix_units:
        supported["fp8"] = ResolvedPrecision(
            "fp8", "float8_e4m3fn", True, False,
            f"fp8 on {device.name}: matrix products in 8 bits, all else in bf16",
        )  # fmt: skip
    return supported


def _on_cuda(device: Device) -> dict[Precision, ResolvedPrecision]:
    capability = device.capability or (0, 0)
    fast16 = "tensor cores" if capability >= _VOLTA else "no tensor cores, so only memory is saved"
    supported: dict[Precision, ResolvedPrecision] = {
        "fp32": ResolvedPrecision("fp32", "float32", False, False, f"fp32 on {device.name}"),
        "fp16": ResolvedPrecision(
            "fp16", "float16", True, True,
            f"fp16 with a loss scaler on {device.name}: {fast16}",
        ),
    }  # fmt: skip
    if device.bf16_matrix_units:
        supported["bf16"] = ResolvedPrecision(
            "bf16", "bfloat16", True, False,
            f"bf16 on {device.name}: as fast as fp16, with the range of fp32, so no loss scaler",
        )  # fmt: skip
    if capability >= _AMPERE:
        supported["tf32"] = ResolvedPrecision(
            "tf32", "float32", False, False,
            f"tf32 on {device.name}: fp32 weights, products with 10 bits of mantissa",
        )  # fmt: skip
    if capability >= _ADA:
        supported["fp8"] = ResolvedPrecision(
            "fp8", "float8_e4m3fn", True, False,
            f"fp8 on {device.name}: matrix products in 8 bits, all else in bf16",
        )  # fmt: skip
    return {name: supported[name] for name in PRECISIONS if name in supported}


def _missing(precision: Precision, device: Device) -> str:
    if device.kind != "cuda":
        return {
            "tf32": "it is a mode of NVIDIA's tensor cores",
            "fp8": "it needs an NVIDIA GPU of the Ada or Hopper generation or newer, or a TPU v7x",
            "fp16": "its narrow range needs a loss scaler and hardware that this chip lacks; "
            "bf16 saves as much memory",
        }.get(precision, "this chip has no units for it")
    needed = {"tf32": "8.0 (Ampere)", "bf16": "8.0 (Ampere)", "fp8": "8.9 (Ada, Hopper)"}
    has = ".".join(map(str, device.capability)) if device.capability else "no CUDA capability"
    return f"it needs CUDA capability {needed[precision]} or newer, this GPU has {has}"


@dataclass(frozen=True)
class PlannedPrecision:
    """A precision as far as it is known before a worker has its chip.

    Args:
        precision: "auto" where only the worker can tell.
        reason: one sentence for the plan.
        device: name of the chip.
        supported: all precisions that the chip computes in; empty where only the worker can tell.
    """

    precision: Precision
    reason: str
    device: str
    supported: tuple[Precision, ...] = ()


def plan_precision(
    precision: Precision, request: Request, node_types: Sequence[NodeType], *, is_here: bool = True
) -> PlannedPrecision:
    """Resolve a precision on the chip that a worker gets, as far as it is declared.

    Args:
        precision: what the spec says.
        request: what one worker gets, with the type that was chosen.
        node_types: where it was placed.
        is_here: whether it runs on this machine; the CPUs of others are taken to be like its own.

    Raises:
        SpecError: the chip cannot compute in it.
    """
    named: tuple[str, ...] = getattr(request, "type", ())
    types = named or tuple(gpu for kind in node_types for gpu in kind.gpu_types)
    device = declared_device(request.kind, types[0] if types else None)
    if device is None:
        return PlannedPrecision(
            precision, f"{precision}: resolved on the GPU that the worker gets", "GPU"
        )
    resolved = resolve(precision, device)
    reason = resolved.reason
    if device.kind == "cpu" and not is_here:
        reason += '; "this CPU" is the planning machine\'s, and each worker looks at its own'
    return PlannedPrecision(resolved.precision, reason, device.name, supported_precisions(device))
