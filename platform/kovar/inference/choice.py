"""Which runtime executes a version: what can, and which is the fastest by measurement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal

from kovar.errors import MissingExtraError, SpecError
from kovar.inference.exports.form import Export, ExportForm
from kovar.inference.runtime import RuntimeName, RuntimePrecision
from kovar.precision import Device, resolve

LIBRARIES: Final = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Runtime → the library that it is, which is also an extra of that name."""

MAX_ACCURACY_LOSS: Final = 0.01


@dataclass(frozen=True)
class Wish:
    """What a spec says about the runtime.

    Args:
        runtime: a runtime, or auto.
        precision: a number format, or auto.
        max_accuracy_loss: what an int8 export may lose of the version's accuracy.
        compiled: whether the torch runtime compiles the model.
    """

    runtime: RuntimeName = "auto"
    precision: RuntimePrecision = "auto"
    max_accuracy_loss: float = MAX_ACCURACY_LOSS
    compiled: bool = False


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to execute a version on this chip.

    Args:
        runtime: what executes it.
        precision: that it computes in.
        export: the file that it executes; None where it is the version's own.
        reason: why this precision, where it was chosen.
    """

    runtime: Literal["torch", "onnx", "openvino"]
    precision: str
    export: Export | None = None
    reason: str = ""

    def __str__(self) -> str:
        quantization = self.export.form.quantization if self.export else None
        return f"{self.runtime} {self.precision}{f' ({quantization})' if quantization else ''}"


def installed_runtimes() -> frozenset[str]:
    """Return the runtimes whose libraries are installed; imports none of them."""
    there = {name for name, library in LIBRARIES.items() if find_spec(library)}
    return frozenset({"torch", *there})


def needed_exports(
    wish: Wish, found: Collection[ExportForm], *, device: Literal["cpu", "cuda"]
) -> ExportForm | None:
    """Return the export that must be made before a wish can be fulfilled; None if there is none.

    Args:
        wish: what a spec says.
        found: the exports that there are.
        device: kind of chip.
    """
    runtime, precision = wish.runtime, wish.precision
    if runtime == "torch" or (runtime == "auto" and precision != "int8"):
        return None
    if precision == "int8":
        static, dynamic = ExportForm("int8", "static"), ExportForm("int8", "dynamic")
        usable = {static} if runtime == "openvino" else {static, dynamic}
        return None if usable & set(found) else (static if runtime == "openvino" else dynamic)
    wanted = ExportForm("fp16" if precision == "fp16" and device == "cuda" else "fp32")
    return None if wanted in found else wanted


def possible_exports(wish: Wish, *, device: Literal["cpu", "cuda"]) -> tuple[ExportForm, ...]:
    """Return every export that could fulfil a wish, in the order in which they are made."""
    if wish.runtime == "torch":
        return ()
    forms = [ExportForm("fp32")]
    if device == "cuda":
        forms.append(ExportForm("fp16"))
    else:
        forms += [ExportForm("int8", "dynamic"), ExportForm("int8", "static")]
    precision = "fp32" if wish.precision == "bf16" else wish.precision
    return tuple(form for form in forms if precision in ("auto", form.precision))


def candidates(
    wish: Wish, exports: Sequence[Export], device: Device, *, installed: Collection[str]
) -> list[Candidate]:
    """Return what can fulfil a wish on this chip, torch first.

    Args:
        wish: what a spec says.
        exports: the exports of the version.
        device: the chip.
        installed: the runtimes whose libraries are there.

    Raises:
        MissingExtraError: the one that is wished for is not installed.
        SpecError: nothing can, or an int8 export loses more accuracy than is allowed.
    """
    if wish.runtime not in ("auto", *installed):
        raise MissingExtraError.of(wish.runtime, needed_for=f"runtime: {wish.runtime}")
    wanted = set(installed) if wish.runtime == "auto" else {wish.runtime}
    found: list[Candidate] = []
    refusals: list[str] = []
    if "torch" in wanted:
        found += _of_torch(wish, device)
    for export in exports:
        refusal = _loses_too_much(export, wish)
        if refusal:
            refusals.append(refusal)
            continue
        found += _of_export(wish, export, device, wanted)
    if not found:
        raise _nothing(wish, device, refusals)
    return found


def _of_torch(wish: Wish, device: Device) -> list[Candidate]:
    if wish.precision == "int8":
        return []
    resolved = resolve(wish.precision, device)
    if resolved.precision == "fp8":
        return []
    return [Candidate("torch", resolved.precision, reason=resolved.reason)]


def _of_export(
    wish: Wish, export: Export, device: Device, wanted: Collection[str]
) -> list[Candidate]:
    form = export.form
    found = []
    if "onnx" in wanted and _suits(wish, form.precision) and not _is_half_on_cpu(form, device):
        found.append(Candidate("onnx", form.precision, export))
    if "openvino" not in wanted or device.kind != "cpu" or form.precision == "fp16":
        return found
    # OpenVINO computes what ONNX Runtime's dynamic operators mean, slower than in fp32.
    if form.precision == "int8" and form.quantization == "static" and _suits(wish, "int8"):
        found.append(Candidate("openvino", "int8", export))
    if form.precision == "fp32":
        halves = device.bf16_matrix_units or wish.precision == "bf16"
        precisions = ("fp32", "bf16") if halves else ("fp32",)
        found += [Candidate("openvino", each, export) for each in precisions if _suits(wish, each)]
    return found


def _suits(wish: Wish, precision: str) -> bool:
    return wish.precision in ("auto", precision)


def _is_half_on_cpu(form: ExportForm, device: Device) -> bool:
    return form.precision == "fp16" and device.kind == "cpu"


def _loses_too_much(export: Export, wish: Wish) -> str | None:
    if export.form.precision != "int8" or not _suits(wish, "int8"):
        return None
    accuracy = export.accuracy
    if accuracy is not None and accuracy.loss <= wish.max_accuracy_loss:
        return None
    return f"{export.form}: {accuracy or 'its accuracy is not known'}"


def _nothing(wish: Wish, device: Device, refusals: Sequence[str]) -> SpecError:
    if refusals:
        return SpecError(
            "the exports in int8 lose more accuracy than is allowed: " + "; ".join(refusals),
            field="max_accuracy_loss",
            got=wish.max_accuracy_loss,
            hint="take precision: auto, or allow more",
        )
    if wish.runtime == "torch" or wish.precision == "fp8":
        return SpecError(
            f"the {wish.runtime} runtime does not compute at this precision",
            field="precision",
            got=wish.precision,
            allowed="auto, fp32, tf32, bf16, fp16",
            hint="int8 is made by exporting: take runtime: auto or onnx"
            if wish.precision == "int8"
            else None,
        )
    return SpecError(
        f"no export of the version runs so on {device.name}",
        field="runtime",
        got=f"{wish.runtime}, precision: {wish.precision}",
        hint="make exports with jobs/export.py, or take runtime: auto",
    )


@dataclass(frozen=True)
class Choice:
    """The candidate that was taken, and why.

    Args:
        candidate: what executes the version.
        reason: one sentence.
    """

    candidate: Candidate
    reason: str


def only(candidate: Candidate, wish: Wish) -> Choice:
    """Take the only candidate."""
    if candidate.runtime == "torch" and wish.runtime == "auto":
        why = "the version has no exports"
    else:
        why = "as asked" if wish.runtime != "auto" else "the only one that suits"
    return Choice(candidate, "; ".join(filter(None, (f"{candidate}: {why}", candidate.reason))))


def fastest(rates: Mapping[Candidate, float], *, circumstances: str) -> Choice:
    """Take the candidate of the highest rate.

    Args:
        rates: candidate → texts a second; at least one.
        circumstances: of the measurement: chip and threads.
    """
    order = sorted(rates, key=lambda one: -rates[one])
    best, *others = order
    told = ", ".join(f"{one} {rates[one]:,.0f}" for one in others)
    against = f" against {told}" if told else ""
    return Choice(best, f"{best}: {rates[best]:,.0f} texts/s{against}, measured on {circumstances}")
