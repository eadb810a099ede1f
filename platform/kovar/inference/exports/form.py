"""Exports: a version's model as an ONNX file, for runtimes other than torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from kovar.errors import RegistryError
from kovar.registry.derived import DerivedManifest

EXPORT_KIND: Final = "onnx"
EXPORT_FILE: Final = "model.onnx"
EXPORT_FORMAT: Final = 1
"""Raised where exports of an earlier Kovar cannot be run by this one: they are made again."""

INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
LOGITS: Final = "logits"
EMBEDDING: Final = "text_embedding"

Quantization = Literal["dynamic", "static"]
ExportName = Literal["fp32", "fp16", "int8-dynamic", "int8-static"]
EXPORTS: Final[tuple[ExportName, ...]] = ("fp32", "fp16", "int8-dynamic", "int8-static")


@dataclass(frozen=True, order=True)
class ExportForm:
    """In which numbers an export computes.

    Args:
        precision: fp32, fp16 or int8.
        quantization: of int8: whether the range of activations is measured in each batch
            ("dynamic"), or was measured once on texts ("static").
    """

    precision: Literal["fp32", "fp16", "int8"]
    quantization: Quantization | None = None

    @classmethod
    def of(cls, name: ExportName) -> ExportForm:
        """Return the form that a name says."""
        match name:
            case "int8-dynamic":
                return cls("int8", "dynamic")
            case "int8-static":
                return cls("int8", "static")
            case _:
                return cls(name)

    def __str__(self) -> str:
        return f"{self.precision}-{self.quantization}" if self.quantization else self.precision


@dataclass(frozen=True)
class Accuracy:
    """How an int8 export compares with the version that it was made of, on the same texts.

    Args:
        metric: accuracy, or f1_micro where texts have any number of labels.
        reference: of the version in fp32.
        export: of the export.
        num_rows: labeled texts, none of which the version was trained on.
    """

    metric: str
    reference: float
    export: float
    num_rows: int

    @property
    def loss(self) -> float:
        """What the export loses; below 0 where it is better."""
        return self.reference - self.export

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.export:.4f} against {self.reference:.4f} in fp32 "
            f"on {self.num_rows:,} texts"
        )


@dataclass(frozen=True)
class Export:
    """An export in the registry, and where its files are once they were fetched.

    Args:
        manifest: of the derived artifact.
        folder: its verified files on this machine.
    """

    manifest: DerivedManifest
    folder: Path

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / EXPORT_FILE

    @property
    def form(self) -> ExportForm:
        """In which numbers it computes."""
        return form_of(self.manifest)

    @property
    def accuracy(self) -> Accuracy | None:
        """How it compares with the version; None where it was not measured."""
        return accuracy_of(self.manifest)


def settings_of(form: ExportForm, *, accuracy: Accuracy | None, **more: Any) -> dict[str, Any]:
    """Return how an export was made, for its manifest."""
    settings: dict[str, Any] = {"format": EXPORT_FORMAT, "precision": form.precision, **more}
    if form.quantization:
        settings["quantization"] = form.quantization
    if accuracy:
        settings["accuracy"] = vars(accuracy)
    return settings


def is_export(manifest: DerivedManifest) -> bool:
    """Whether a derived artifact is an export that this Kovar runs."""
    return manifest.kind == EXPORT_KIND and manifest.settings.get("format") == EXPORT_FORMAT


def form_of(manifest: DerivedManifest) -> ExportForm:
    """Return in which numbers an export computes.

    Raises:
        RegistryError: the manifest is not that of an export.
    """
    settings: dict[str, Any] = dict(manifest.settings)
    form = ExportForm(settings.get("precision", ""), settings.get("quantization"))
    if str(form) not in EXPORTS:
        raise RegistryError(f"the derived artifact {manifest.digest[:12]} is no export")
    return form


def accuracy_of(manifest: DerivedManifest) -> Accuracy | None:
    """Return how an export compares with the version; None where it was not measured."""
    found: Any = manifest.settings.get("accuracy")
    return Accuracy(**found) if isinstance(found, dict) else None
