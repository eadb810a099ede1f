"""Which runtime is taken: what suits a wish on a chip, and what is the fastest of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kovar.errors import MissingExtraError, SpecError
from kovar.inference import Export, ExportForm, Wish, needed_exports
from kovar.inference.choice import Candidate, candidates, fastest, only
from kovar.inference.exports.form import Accuracy, settings_of
from kovar.precision import Device
from kovar.registry import FileEntry
from kovar.registry.derived import DerivedManifest

PLAIN = Device("cpu", "an old CPU", bf16_matrix_units=False)
AMX = Device("cpu", "a CPU with AMX", bf16_matrix_units=True)
H100 = Device("cuda", "NVIDIA H100", bf16_matrix_units=True, capability=(9, 0))
ALL = ("torch", "onnx", "openvino")
FORMS = ("fp32", "int8-dynamic", "int8-static")


def export_of(name: str, *, loss: float | None = 0.004) -> Export:
    form = ExportForm.of(name)
    judged = form.precision == "int8" and loss is not None
    accuracy = Accuracy("accuracy", 0.84, 0.84 - (loss or 0), 1605) if judged else None
    manifest = DerivedManifest(
        version="0" * 64,
        kind="onnx",
        runtime="onnx",
        chip="any",
        settings=settings_of(form, accuracy=accuracy),
        files=(FileEntry(path="model.onnx", size_bytes=1, sha256="0" * 64),),
    )
    return Export(manifest, Path())


EXPORTS = [export_of(name) for name in FORMS]


def names(wish: Wish, device: Device = PLAIN, exports=EXPORTS, installed=ALL) -> list[str]:
    return [str(one) for one in candidates(wish, exports, device, installed=installed)]


def test_auto_considers_torch_and_every_export_that_the_chip_runs_well():
    assert names(Wish()) == [
        "torch fp32",
        "onnx fp32",
        "openvino fp32",
        "onnx int8 (dynamic)",
        "onnx int8 (static)",
        "openvino int8 (static)",
    ]


def test_bf16_is_considered_where_the_chip_has_units_for_it():
    assert names(Wish(), AMX, EXPORTS[:1]) == [
        "torch bf16",
        "onnx fp32",
        "openvino fp32",
        "openvino bf16",
    ]


def test_without_exports_auto_is_torch():
    assert names(Wish(), exports=[]) == ["torch fp32"]


def test_auto_leaves_out_what_is_not_installed():
    assert names(Wish(), installed=("torch",)) == ["torch fp32"]


def test_a_runtime_that_is_asked_for_and_not_installed_names_the_command():
    with pytest.raises(MissingExtraError, match=r'pip install "kovar-platform\[onnx\]"'):
        names(Wish("onnx"), installed=("torch",))


def test_a_precision_that_is_asked_for_is_what_runs():
    assert names(Wish("auto", "int8")) == [
        "onnx int8 (dynamic)",
        "onnx int8 (static)",
        "openvino int8 (static)",
    ]
    assert names(Wish("auto", "fp32")) == ["torch fp32", "onnx fp32", "openvino fp32"]


def test_openvino_is_for_cpus():
    assert names(Wish(precision="fp32"), H100) == ["torch fp32", "onnx fp32"]


def test_torch_does_not_compute_in_int8():
    with pytest.raises(SpecError, match="does not compute at this precision") as refusal:
        names(Wish("torch", "int8"))
    assert refusal.value.field == "precision"


def test_auto_leaves_out_an_export_that_loses_too_much():
    exports = [export_of("fp32"), export_of("int8-dynamic", loss=0.02)]
    assert names(Wish(), exports=exports, installed=("torch", "onnx")) == [
        "torch fp32",
        "onnx fp32",
    ]


def test_int8_that_loses_too_much_is_refused_with_what_it_loses():
    with pytest.raises(SpecError, match=r"0\.8200 against 0\.8400") as refusal:
        names(Wish("onnx", "int8"), exports=[export_of("int8-dynamic", loss=0.02)])
    assert refusal.value.field == "max_accuracy_loss"


def test_int8_of_unknown_accuracy_is_refused():
    with pytest.raises(SpecError, match="not known"):
        names(Wish("onnx", "int8"), exports=[export_of("int8-dynamic", loss=None)])


def test_more_loss_may_be_allowed():
    exports = [export_of("int8-dynamic", loss=0.02)]
    assert names(Wish("onnx", "int8", 0.03), exports=exports) == ["onnx int8 (dynamic)"]


@pytest.mark.parametrize(
    ("runtime", "precision", "device", "needed"),
    [
        ("auto", "auto", "cpu", None),
        ("torch", "bf16", "cpu", None),
        ("onnx", "auto", "cpu", "fp32"),
        ("onnx", "fp16", "cuda", "fp16"),
        ("openvino", "bf16", "cpu", "fp32"),
        ("auto", "int8", "cpu", "int8-dynamic"),
        ("onnx", "int8", "cpu", "int8-dynamic"),
        ("openvino", "int8", "cpu", "int8-static"),
    ],
)
def test_an_export_is_made_where_a_wish_cannot_do_without(runtime, precision, device, needed):
    found = needed_exports(Wish(runtime, precision), (), device=device)
    assert (found and str(found)) == needed


def test_what_is_there_is_not_made_again():
    static = ExportForm("int8", "static")
    assert needed_exports(Wish("onnx", "int8"), {static}, device="cpu") is None
    assert needed_exports(Wish("onnx"), {ExportForm("fp32")}, device="cpu") is None


def test_the_fastest_is_taken_and_the_others_are_named():
    rates = {Candidate("torch", "fp32"): 340.0, Candidate("onnx", "int8", EXPORTS[1]): 625.4}
    choice = fastest(rates, circumstances="this CPU, 2 threads")
    assert str(choice.candidate) == "onnx int8 (dynamic)"
    assert choice.reason == (
        "onnx int8 (dynamic): 625 texts/s against torch fp32 340, measured on this CPU, 2 threads"
    )


def test_a_single_candidate_says_why_it_is_the_only_one():
    candidate = Candidate("torch", "fp32", reason="fp32: no units")
    assert (
        only(candidate, Wish()).reason == "torch fp32: the version has no exports; fp32: no units"
    )
    assert "as asked" in only(candidate, Wish("torch")).reason
