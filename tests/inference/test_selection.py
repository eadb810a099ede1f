"""A runtime that fails is left out, told, and replaced; one that was asked for is not replaced."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kovar.errors import GoldenError, ModelError
from kovar.inference import Export, ExportForm, Wish
from kovar.inference.choice import Candidate
from kovar.inference.exports.form import settings_of
from kovar.inference.measurement import Measurements
from kovar.inference.selection import Selection
from kovar.registry import FileEntry
from kovar.registry.derived import DerivedManifest

MANIFEST = DerivedManifest(
    version="0" * 64,
    kind="onnx",
    runtime="onnx",
    chip="any",
    settings=settings_of(ExportForm("fp32"), accuracy=None),
    files=(FileEntry(path="model.onnx", size_bytes=1, sha256="0" * 64),),
)
EXPORT = Export(MANIFEST, Path())
TORCH = Candidate("torch", "fp32")
ONNX = Candidate("onnx", "fp32", EXPORT)
OPENVINO = Candidate("openvino", "fp32", EXPORT)
ALL = [TORCH, ONNX, OPENVINO]
AUTO = Wish()
DIFFERS = GoldenError("golden example 3: a score differs by 0.4")


@dataclass
class Loaded:
    candidate: Candidate
    reason: str = ""
    left_out: tuple[str, ...] = ()


@dataclass
class Chip:
    """A chip on which some candidates fail.

    Args:
        failing: candidate → how.
        rates: candidate → texts a second.
    """

    failing: dict[Candidate, Exception] = field(default_factory=dict)
    rates: dict[Candidate, float] = field(
        default_factory=lambda: {TORCH: 7.0, ONNX: 9.0, OPENVINO: 8.0}
    )

    def load(self, candidate: Candidate) -> Loaded:
        if candidate in self.failing:
            raise self.failing[candidate]
        return Loaded(candidate)

    def take(self, found=ALL, kept: Measurements | None = None, wish: Wish = AUTO) -> Loaded:
        selection = Selection(
            load=self.load,
            rate=lambda loaded: self.rates[loaded.candidate],
            wish=wish,
            circumstances="a CPU",
        )
        return selection.take(found, kept)


@pytest.fixture
def kept(tmp_path) -> Measurements:
    kept = Measurements(tmp_path, "key")
    kept.write({str(TORCH): 7.0, str(ONNX): 9.0, str(OPENVINO): 8.0})
    return kept


def test_torch_answers_where_the_fastest_fails_its_golden_check_at_a_later_start(kept, caplog):
    taken = Chip({ONNX: DIFFERS}).take(kept=kept)
    assert taken.candidate is TORCH
    assert taken.left_out == ("onnx fp32",)
    assert taken.reason == (
        "torch fp32: onnx fp32, which was the fastest on a CPU, failed; "
        "left out: onnx fp32 (golden example 3: a score differs by 0.4)"
    )
    assert "onnx fp32 is left out: golden example 3" in caplog.text


def test_torch_answers_also_where_it_was_never_measured(kept):
    kept.write({str(ONNX): 9.0})
    assert Chip({ONNX: DIFFERS}).take(kept=kept).candidate is TORCH


def test_a_library_that_cannot_open_an_export_stops_nothing_and_its_message_stays_out(kept):
    taken = Chip({ONNX: RuntimeError("a golden text")}).take(kept=kept)
    assert taken.candidate is TORCH
    assert taken.reason.endswith("left out: onnx fp32 (RuntimeError)")


def test_what_stops_torch_itself_is_not_hidden(kept):
    with pytest.raises(ModelError):
        Chip({ONNX: DIFFERS, TORCH: ModelError("no weights")}).take(kept=kept)


@pytest.mark.parametrize("content", ["{", "[]", '{"onnx fp32": "fast"}', '{"onnx fp32": NaN}', ""])
def test_measurements_that_are_damaged_are_made_again(kept, content, caplog):
    kept.path.write_text(content)
    assert Chip().take(kept=kept).candidate is ONNX
    assert kept.read()["openvino fp32"] == 8.0
    assert "damaged" in caplog.text


def test_measurements_that_cannot_be_kept_stop_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert Chip().take(kept=Measurements(tmp_path / "file", "key")).candidate is ONNX


def test_what_fails_while_it_is_measured_is_left_out_then_and_later(tmp_path):
    kept, chip = Measurements(tmp_path, "key"), Chip({ONNX: DIFFERS})
    assert chip.take(kept=kept).candidate is OPENVINO
    again = chip.take(kept=kept)
    assert again.candidate is OPENVINO
    assert again.left_out == ("onnx fp32",)
    assert again.reason.endswith("left out: onnx fp32 (it failed when it was measured)")


def test_what_fails_for_a_reason_that_may_pass_is_tried_again_at_the_next_start(tmp_path):
    kept, chip = Measurements(tmp_path, "key"), Chip({ONNX: MemoryError()})
    assert chip.take(kept=kept).reason.endswith("left out: onnx fp32 (MemoryError)")
    assert chip.take(kept=kept).left_out == ("onnx fp32",)
    assert set(kept.read()) == {"torch fp32", "openvino fp32"}
    later = Chip().take(kept=kept)
    assert (later.candidate, later.left_out) == (ONNX, ())
    assert kept.read()["onnx fp32"] == 9.0


def test_a_runtime_that_is_asked_for_is_not_replaced(kept):
    with pytest.raises(GoldenError, match="onnx fp32: golden example 3"):
        Chip({ONNX: DIFFERS}).take([ONNX], kept, Wish("onnx"))


def test_nothing_is_served_that_answers_otherwise(kept):
    failing = {TORCH: DIFFERS, ONNX: DIFFERS, OPENVINO: DIFFERS}
    with pytest.raises(GoldenError, match="nothing executes the version as it was evaluated"):
        Chip(failing).take(kept=kept)
