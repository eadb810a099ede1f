"""From a version's folder to a runtime that is proven to answer as the version was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kovar.errors import GoldenError, ModelError, SpecError
from kovar.inference.runtime import Runtime, Text
from kovar.inference.torch_model import TorchModel, load_torch_model
from kovar.inference.torch_runtime import TorchRuntime
from kovar.inference.torch_scorer import TorchScorer
from kovar.inference.torch_tagger import TorchTagger
from kovar.models import ADAPTER_CONFIG, head_of
from kovar.precision import Precision, detect_device, resolve
from kovar.registry.golden import (
    GOLDEN_FILE,
    GoldenNumbers,
    check_golden,
    check_numbers,
    read_golden,
)

if TYPE_CHECKING:
    from kovar.registry import Registry, Version

RuntimeName = Literal["torch"]

Loaded = TorchRuntime | TorchTagger | TorchScorer
"""What a version may be loaded as, by the head that its model was saved with."""

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
    """Load the folder of a version that classifies texts; see `load_any`, which takes any version.

    Raises:
        GoldenError: an answer differs from the golden one.
        ModelError: a file is missing or damaged, or the version does not classify texts.
        SpecError: the device cannot compute at this precision.
    """
    loaded = load_any(
        folder,
        runtime=runtime,
        precision=precision,
        num_threads=num_threads,
        device=device,
        require_golden=require_golden,
        base_folder=base_folder,
    )
    if not isinstance(loaded, TorchRuntime):
        raise ModelError(
            "the version does not classify texts",
            file=folder,
            got=loaded.task,
            allowed="text-classification",
            hint="ask it in Python: kovar.inference.load_version",
        )
    return loaded


def load_any(
    folder: Path,
    *,
    runtime: RuntimeName = "torch",
    precision: Precision = "auto",
    num_threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    require_golden: bool = False,
    base_folder: Path | None = None,
) -> Loaded:
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
    loaded = _with_its_head(
        load_torch_model(
            folder,
            precision=resolved,
            num_threads=num_threads,
            device=device,
            base_folder=base_folder,
        )
    )
    if require_golden or (folder / GOLDEN_FILE).exists():
        verify_golden(loaded, folder)
    return loaded


def _with_its_head(model: TorchModel) -> Loaded:
    match head_of(model.files.config):
        case "token-classification":
            return TorchTagger(model)
        case "causal-lm" | "masked-lm":
            return TorchScorer(model)
        case _:
            return TorchRuntime(model)


def load_version(registry: Registry, version: Version, **options: Any) -> Loaded:
    """Load a registered version, an adapter with its base; `options` are those of `load_any`.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
        GoldenError: an answer differs from the golden one.
    """
    base = adapter_base(registry, version)
    return load_any(
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


def verify_golden(loaded: Loaded, folder: Path) -> float:
    """Run the golden examples in `folder`.

    Returns:
        The largest difference of a number: of a probability, mostly.

    Raises:
        GoldenError: an answer differs by more than the precision allows, or there are no examples.
    """
    golden, tolerance = read_golden(folder), GOLDEN_TOLERANCE[loaded.precision]
    if isinstance(golden, GoldenNumbers):
        return check_numbers(golden, _numbers(loaded, golden), tolerance=tolerance)
    if not isinstance(loaded, TorchRuntime):
        raise GoldenError(f"{GOLDEN_FILE} holds labels of texts, which this version does not give")
    texts: list[Text] = [
        one.text if one.text_pair is None else (one.text, one.text_pair) for one in golden.examples
    ]
    return check_golden(golden, loaded.predict(texts), tolerance=tolerance)


def _numbers(loaded: Loaded, golden: GoldenNumbers) -> list[tuple[float, ...]]:
    if isinstance(loaded, TorchTagger):
        return [tagging.numbers for tagging in loaded.tag([one.words for one in golden.examples])]
    if isinstance(loaded, TorchScorer):
        texts, forms = [one.text for one in golden.examples], {one.form for one in golden.examples}
        if len(forms) == 1:
            return [(one.loss,) for one in loaded.score(texts, form=forms.pop() or "text")]
    raise GoldenError(f"{GOLDEN_FILE} holds {golden.meaning}, which this version does not give")
