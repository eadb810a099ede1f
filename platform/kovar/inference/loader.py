"""From a version's folder to a runtime that is proven to answer as the version was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kovar.errors import SpecError
from kovar.inference.runtime import Runtime
from kovar.inference.torch_runtime import TorchRuntime
from kovar.precision import Precision, detect_device, resolve
from kovar.registry.golden import GOLDEN_FILE, check_golden, read_golden

if TYPE_CHECKING:
    from kovar.precision import ResolvedPrecision

RuntimeName = Literal["torch"]

GOLDEN_TOLERANCE: dict[str, float] = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 3e-2, "fp16": 3e-2}
"""Largest difference of a probability that counts as the same answer, by precision."""


def load_runtime(
    folder: Path,
    *,
    runtime: RuntimeName = "torch",
    precision: Precision = "auto",
    num_threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    require_golden: bool = False,
) -> Runtime:
    """Load a version's folder and check it against its golden examples.

    Args:
        folder: the files of the version.
        runtime: what executes it.
        precision: number format; `auto` takes the best of the device.
        num_threads: CPU threads of the whole process; the library's own choice when absent.
        device: kind of chip.
        require_golden: refuse a folder without golden examples.

    Raises:
        GoldenError: an answer differs from the golden one.
        ModelError: a file is missing or damaged.
        SpecError: the device cannot compute at this precision.
    """
    resolved = resolve(precision, detect_device(device))
    if resolved.precision not in GOLDEN_TOLERANCE:
        raise SpecError(
            f"the {runtime} runtime does not compute at this precision",
            field="precision",
            got=resolved.precision,
            allowed=", ".join(GOLDEN_TOLERANCE),
        )
    loaded = _load(folder, runtime, resolved, num_threads=num_threads, device=device)
    if require_golden or (folder / GOLDEN_FILE).exists():
        verify_golden(loaded, folder)
    return loaded


def _load(
    folder: Path,
    runtime: RuntimeName,
    precision: ResolvedPrecision,
    *,
    num_threads: int | None,
    device: str,
) -> Runtime:
    match runtime:
        case "torch":
            return TorchRuntime.load(
                folder,
                precision=precision,
                num_threads=num_threads,
                device=device,
            )


def verify_golden(runtime: Runtime, folder: Path) -> float:
    """Run the golden examples in `folder`.

    Returns:
        The largest difference of a probability.

    Raises:
        GoldenError: an answer differs by more than the precision allows, or there are no examples.
    """
    golden = read_golden(folder)
    predictions = runtime.predict([example.text for example in golden.examples])
    return check_golden(golden, predictions, tolerance=GOLDEN_TOLERANCE[runtime.precision])
