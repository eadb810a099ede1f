"""Exports are made once: traced or quantized, checked, and hung on their version."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kovar.errors import DamagedArtifactError, SpecError, UntrustedVersionError
from kovar.inference.exports.form import (
    EXPORT_FILE,
    EXPORT_KIND,
    Accuracy,
    ExportForm,
    form_of,
    is_export,
    settings_of,
)
from kovar.inference.exports.labeled import LabeledTexts, labeled_texts
from kovar.precision import detect_device
from kovar.registry.version import GoldenResult

if TYPE_CHECKING:
    from kovar.inference.runtime import Runtime
    from kovar.registry import Registry, Version
    from kovar.registry.derived import DerivedArtifact

log = logging.getLogger(__name__)

CLASSIFIERS: Final = ("text-classification", "multilabel-classification")
"""Tasks whose versions can be exported."""


@dataclass(frozen=True)
class ExportBuilder:
    """Finds or makes the exports of one version.

    Args:
        registry: where the version is, and its exports will be.
        version: what is exported.
        cache_dir: where packages, traced files and locks are kept.
        base_dir: folder that relative paths in the version's spec start from.
        max_accuracy_loss: what an int8 export may lose of the version's accuracy.
    """

    registry: Registry
    version: Version
    cache_dir: Path
    base_dir: Path
    max_accuracy_loss: float

    def found(self) -> dict[ExportForm, DerivedArtifact]:
        """Return the newest export of each form.

        Where keys are trusted, one that none of them attests does not count: it would be executed
        in the place of the signed version, and anybody may have hung it there.
        """
        return {
            form_of(one.manifest): one
            for one in self.registry.derived(self.version)
            if is_export(one.manifest) and self._is_trusted(one)
        }

    def _is_trusted(self, artifact: DerivedArtifact) -> bool:
        try:
            self.registry.check_derived(artifact)
        except UntrustedVersionError as refusal:
            log.warning("an export is left out: %s", refusal.message)
            return False
        return True

    def ensure(self, form: ExportForm) -> DerivedArtifact:
        """Return an export, made now where there is none; others wait for it meanwhile.

        Raises:
            GoldenError: it does not answer as the version was evaluated.
            MissingExtraError: a library is not installed.
            ModelError: the model cannot be exported.
            SpecError: the version does not classify texts, or int8 loses too much of its accuracy.
            UntrustedVersionError: keys are trusted, and none of them would attest the export.
        """
        from filelock import FileLock

        self._check_task()
        if existing := self.found().get(form):
            return existing
        folder = self.cache_dir / "exports"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{self.version.digest}-{form}.lock"):
            return self.found().get(form) or self.build(form)

    def fetch(self, form: ExportForm) -> tuple[DerivedArtifact, Path]:
        """Return an export and its verified files; made now where the store's are damaged.

        Raises:
            DamagedArtifactError: the version itself is damaged.
            KovarError: it cannot be made; see `ensure`.
        """
        artifact = self.ensure(form)
        try:
            # A whole copy on this machine says nothing of what others would fetch.
            self.registry.check_files(artifact)
        except DamagedArtifactError as damage:
            log.warning("the %s export is made again: %s", form, damage.message)
            artifact = self.build(form)
        return artifact, self.registry.materialize_derived(artifact)

    def check_loss(self, accuracy: Accuracy | None, form: ExportForm) -> None:
        """Refuse an export that loses too much.

        Raises:
            SpecError: naming what it loses.
        """
        if accuracy is not None and accuracy.loss > self.max_accuracy_loss:
            raise SpecError(
                f"the {form} export of {self.version} loses {accuracy.loss:.4f}: {accuracy}",
                field="max_accuracy_loss",
                got=self.max_accuracy_loss,
                allowed=f"at least {accuracy.loss:.4f}, or precision: fp32 or bf16",
            )

    def _check_task(self) -> None:
        task = self.version.manifest.signature.task
        if task not in CLASSIFIERS:
            raise SpecError(
                f"{self.version} cannot be exported",
                field="runtime",
                got=task,
                allowed=", ".join(CLASSIFIERS),
                hint="take runtime: torch",
            )

    def build(self, form: ExportForm) -> DerivedArtifact:
        """Make an export, also where there is one already; see `ensure`."""
        self.registry.check_can_attest(name=f"the {form} export of {self.version}")
        log.info("exporting %s to %s", self.version, form)
        judges = self._texts if form.precision == "int8" else None
        with tempfile.TemporaryDirectory(prefix="kovar-export-") as name:
            path = Path(name) / EXPORT_FILE
            self._write(form, path)
            runtime = self._load(form, path)
            golden = self._golden(runtime)
            accuracy = None if judges is None else judges.compare(self._reference, runtime)
            self.check_loss(accuracy, form)
            return self.registry.derive(
                self.version,
                Path(name),
                kind=EXPORT_KIND,
                runtime="onnx",
                settings=settings_of(form, accuracy=accuracy),
                golden=golden,
            )

    def _write(self, form: ExportForm, path: Path) -> None:
        from kovar.inference.exports.graph import write_graph

        if form.precision != "int8":
            write_graph(self._folder, path, precision=form.precision, base_folder=self._base_folder)
            return
        from kovar.inference.exports.quantization import quantize_dynamic, quantize_static
        from kovar.inference.reader import Reader

        whole = self.fetch(ExportForm("fp32"))[1] / EXPORT_FILE
        if form.quantization == "dynamic":
            quantize_dynamic(whole, path)
            return
        reader = Reader.of(self._folder, base_folder=self._base_folder)
        quantize_static(whole, path, reader=reader, texts=self._texts.calibration)

    def _load(self, form: ExportForm, path: Path) -> Runtime:
        from kovar.inference.loader import load_export

        return load_export(
            self._folder, path, precision=form.precision, base_folder=self._base_folder
        )

    def _golden(self, runtime: Runtime) -> GoldenResult:
        from kovar.inference.golden import tolerance_of, verify_golden

        return GoldenResult(
            runtime="onnx",
            chip=detect_device("cpu").name,
            passed=True,
            difference=verify_golden(runtime, self._folder),
            tolerance=tolerance_of(runtime.precision),
        )

    @cached_property
    def _folder(self) -> Path:
        return self.registry.materialize(self.version)

    @cached_property
    def _base_folder(self) -> Path | None:
        from kovar.inference.loader import adapter_base

        base = adapter_base(self.registry, self.version)
        return None if base is None else self.registry.materialize(base)

    @cached_property
    def _texts(self) -> LabeledTexts:
        return labeled_texts(self.version, cache_dir=self.cache_dir, base_dir=self.base_dir)

    @cached_property
    def _reference(self) -> Runtime:
        from kovar.inference.loader import load_runtime

        return load_runtime(
            self._folder, runtime="torch", precision="fp32", base_folder=self._base_folder
        )
