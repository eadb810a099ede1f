"""From a version's folder to a runtime that is proven to answer as the version was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kovar.errors import ModelError, SpecError
from kovar.inference.runtime import Runtime
from kovar.inference.torch_runtime import TorchRuntime
from kovar.models import ADAPTER_CONFIG
from kovar.precision import Precision, detect_device, resolve
from kovar.registry.golden import GOLDEN_FILE, check_golden, read_golden

if TYPE_CHECKING:
    from kovar.precision import ResolvedPrecision
    from kovar.registry import Registry, Version

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
    base_folder: Path | None = None,
) -> Runtime:
    """Load a version's folder and check it against its golden examples.

    Args:
        folder: the files of the version.
        runtime: what executes it.
        precision: number format; `auto` takes the best of the device.
        num_threads: CPU threads of the whole process; the library's own choice when absent.
        device: kind of chip.
        require_golden: refuse a folder without golden examples.
        base_folder: files of the version that an adapter was trained on; see `adapter_base`.

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
    loaded = _load(
        folder, runtime, resolved, num_threads=num_threads, device=device, base_folder=base_folder
    )
    if require_golden or (folder / GOLDEN_FILE).exists():
        verify_golden(loaded, folder)
    return loaded


def load_version(registry: Registry, version: Version, **options: Any) -> Runtime:
    """Load a registered version, an adapter with its base; `options` are those of `load_runtime`.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
        GoldenError: an answer differs from the golden one.
    """
    base = adapter_base(registry, version)
    return load_runtime(
        registry.materialize(version),
        base_folder=None if base is None else registry.materialize(base),
        **options,
    )


def adapter_base(registry: Registry, version: Version) -> Version | None:
    """Return the version that an adapter was trained on; None if the version is a whole model.

    Raises:
        ModelError: the adapter does not say what it was trained on.
        NotFoundError: its base is not in the registry.
    """
    manifest = version.manifest
    if all(file.path != ADAPTER_CONFIG for file in manifest.files):
        return None
    digests = [parent.digest for parent in manifest.parents if parent.role == "base"]
    if not digests:
        raise ModelError("the adapter names no base", got=str(version))
    return registry.resolve(digests[0])


def _load(
    folder: Path,
    runtime: RuntimeName,
    precision: ResolvedPrecision,
    *,
    num_threads: int | None,
    device: str,
    base_folder: Path | None,
) -> Runtime:
    match runtime:
        case "torch":
            return TorchRuntime.load(
                folder,
                precision=precision,
                num_threads=num_threads,
                device=device,
                base_folder=base_folder,
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
