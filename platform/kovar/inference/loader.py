"""From a version's folder to a runtime that is proven to answer as the version was evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kovar.errors import ModelError, SpecError
from kovar.inference.attributor import Attributor
from kovar.inference.choice import Candidate, Wish, candidates, installed_runtimes
from kovar.inference.classifier_runtime import ClassifierRuntime
from kovar.inference.exports.form import Export
from kovar.inference.golden import GOLDEN_TOLERANCE, golden_texts, verify_golden
from kovar.inference.measurement import Measurements, sample_batch, texts_per_second
from kovar.inference.onnx_runtime import OnnxRuntime, open_session
from kovar.inference.openvino_runtime import OpenVinoRuntime, compile_model
from kovar.inference.reader import Reader, check_version
from kovar.inference.runtime import RuntimeName, RuntimePrecision
from kovar.inference.selection import Selection
from kovar.inference.torch_model import TorchModel, load_torch_model
from kovar.inference.torch_runtime import TorchRuntime
from kovar.inference.torch_scorer import TorchScorer
from kovar.inference.torch_tagger import TorchTagger
from kovar.models import ADAPTER_CONFIG, head_of
from kovar.precision import Precision, ResolvedPrecision, detect_device, resolve
from kovar.registry.golden import GOLDEN_FILE

if TYPE_CHECKING:
    from kovar.registry import Registry, Version

Loaded = TorchRuntime | TorchTagger | TorchScorer
"""What a version may be loaded as by torch, by the head that its model was saved with."""


@dataclass(frozen=True)
class Place:
    """The files of a version, and the chip that it runs on.

    Args:
        folder: the files of the version.
        device: kind of chip.
        num_threads: CPU threads of one batch; the library's own choice when absent.
        base_folder: files of the version that an adapter was trained on; see `adapter_base`.
        require_golden: refuse a folder without golden examples.
        num_parallel: batches that run at a time.
        engines: folder for TensorRT's compiled engines, one of each export in it.
    """

    folder: Path
    device: Literal["cpu", "cuda"] = "cpu"
    num_threads: int | None = None
    base_folder: Path | None = None
    require_golden: bool = False
    num_parallel: int = 1
    engines: Path | None = None

    @property
    def has_golden(self) -> bool:
        """Whether there are golden examples, or must be."""
        return self.require_golden or (self.folder / GOLDEN_FILE).exists()

    def torch_model(self, precision: ResolvedPrecision) -> TorchModel:
        """Load the version by torch."""
        return load_torch_model(
            self.folder,
            precision=precision,
            num_threads=self.num_threads,
            device=self.device,
            base_folder=self.base_folder,
        )

    def exact_model(self) -> TorchModel:
        """Load the version by torch in fp32."""
        return self.torch_model(resolve("fp32", detect_device(self.device)))


def load_runtime(
    folder: Path,
    *,
    runtime: RuntimeName = "auto",
    precision: RuntimePrecision = "auto",
    num_threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    require_golden: bool = False,
    base_folder: Path | None = None,
    exports: Sequence[Export] = (),
    max_accuracy_loss: float = Wish.max_accuracy_loss,
    compiled: bool = False,
    measurements: Path | None = None,
    measure_anew: bool = False,
    num_parallel: int = 1,
    engines: Path | None = None,
) -> ClassifierRuntime:
    """Load a version that classifies texts and check it against its golden examples.

    Of several runtimes that suit, the fastest by measurement on this chip is taken, and torch
    where that one fails; `reason` of the runtime tells which and why.

    Args:
        folder: the files of the version.
        runtime: what executes it; auto takes the fastest of torch and the exports.
        precision: number format; auto takes what is fastest on the chip.
        num_threads: CPU threads of one batch; the library's own choice when absent.
        device: kind of chip.
        require_golden: refuse a folder without golden examples.
        base_folder: files of the version that an adapter was trained on; see `adapter_base`.
        exports: the version's exports on this machine.
        max_accuracy_loss: what an int8 export may lose of the version's accuracy.
        compiled: compile the model with torch.compile, in the torch runtime.
        measurements: folder that measured rates are kept in; they are measured anew without one.
        measure_anew: measure what was measured before as well, and keep that.
        num_parallel: batches that may run at a time; rates are those of one alone.
        engines: folder for TensorRT's compiled engines; it is not used without one.

    Raises:
        GoldenError: an answer differs from the golden one.
        MissingExtraError: the runtime's library is not installed.
        ModelError: a file is missing or damaged, or the version does not classify texts.
        SpecError: the device cannot compute so, or nothing suits.
    """
    place = Place(folder, device, num_threads, base_folder, require_golden, num_parallel, engines)
    wish = Wish(runtime, precision, max_accuracy_loss, compiled)
    _check_classifies(place)
    chip = detect_device(device)
    found = candidates(wish, exports, chip, installed=installed_runtimes())
    threads = "" if num_threads is None else f", threads: {num_threads}"
    selection = Selection(
        load=partial(load_candidate, place=place, wish=wish),
        rate=partial(_rate, place=place),
        wish=wish,
        circumstances=f"{chip.name}{threads}",
    )
    kept = None
    if measurements is not None:
        kept = Measurements.of(
            measurements,
            version=str(folder.name),
            candidates={
                str(one): one.export.manifest.digest if one.export else None for one in found
            },
            circumstances=selection.circumstances,
            compiled=compiled,
        )
        if measure_anew:
            kept.forget()
    return selection.take(found, kept)


def _rate(loaded: ClassifierRuntime, *, place: Place) -> float:
    texts = golden_texts(place.folder) if place.has_golden else []
    batch = sample_batch(loaded.tokenize(texts), max_length=loaded.max_length)
    return texts_per_second(loaded, batch)


def load_candidate(candidate: Candidate, place: Place, wish: Wish) -> ClassifierRuntime:
    """Load one candidate and check it against the golden examples.

    Raises:
        GoldenError: an answer differs from the golden one.
    """
    loaded: ClassifierRuntime
    if candidate.export is None:
        resolved = resolve(_of_torch(candidate.precision), detect_device(place.device))
        loaded = TorchRuntime(
            place.torch_model(resolved), load_exact=place.exact_model, compiled=wish.compiled
        )
    else:
        loaded = _open(candidate, place, candidate.export.path)
    if place.has_golden:
        verify_golden(loaded, place.folder)
    return loaded


def _of_torch(precision: str) -> Precision:
    return precision  # type: ignore[return-value]


def _open(candidate: Candidate, place: Place, path: Path) -> ClassifierRuntime:
    reader = Reader.of(place.folder, base_folder=place.base_folder)

    def attributor() -> Attributor:
        return Attributor(place.exact_model())

    if candidate.runtime == "openvino":
        compiled = compile_model(
            path,
            precision=candidate.precision,
            num_threads=place.num_threads,
            num_parallel=place.num_parallel,
        )
        return OpenVinoRuntime(
            reader, compiled, precision=candidate.precision, load_attributor=attributor
        )
    engines = None
    if place.engines is not None and candidate.export is not None:
        engines = place.engines / candidate.export.manifest.digest
    session = open_session(
        path,
        engines=engines,
        device=place.device,
        num_threads=place.num_threads,
        max_length=reader.max_length,
        num_parallel=place.num_parallel,
    )
    return OnnxRuntime(reader, session, precision=candidate.precision, load_attributor=attributor)


def load_export(
    folder: Path, path: Path, *, precision: str, base_folder: Path | None = None
) -> ClassifierRuntime:
    """Load an export that is not in the registry yet, on a CPU; golden examples are not run.

    Args:
        folder: the files of the version.
        path: the ONNX file.
        precision: that it computes in.
        base_folder: files of the version that an adapter was trained on.
    """
    return _open(Candidate("onnx", precision), Place(folder, base_folder=base_folder), path)


def _check_classifies(place: Place) -> None:
    head = head_of(check_version(place.folder, place.base_folder).config)
    if head not in (None, "sequence-classification"):
        raise ModelError(
            "the version does not classify texts",
            file=place.folder,
            got=head,
            allowed="text-classification",
            hint="ask it in Python: kovar.inference.load_version",
        )


def load_any(
    folder: Path,
    *,
    runtime: Literal["auto", "torch"] = "torch",
    precision: Precision = "auto",
    num_threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    require_golden: bool = False,
    base_folder: Path | None = None,
) -> Loaded:
    """Load any version by torch and check it against its golden examples.

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
    place = Place(folder, device, num_threads, base_folder, require_golden)
    loaded = _with_its_head(place.torch_model(resolved), place)
    if place.has_golden:
        verify_golden(loaded, folder)
    return loaded


def _with_its_head(model: TorchModel, place: Place) -> Loaded:
    match head_of(model.files.config):
        case "token-classification":
            return TorchTagger(model)
        case "causal-lm" | "masked-lm":
            return TorchScorer(model)
        case _:
            return TorchRuntime(model, load_exact=place.exact_model)


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
