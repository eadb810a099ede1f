"""Exports in int8: judged by the labeled texts of the version's own run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kovar.errors import DataError, SpecError
from kovar.inference import Export, ExportBuilder, ExportForm, load_runtime
from kovar.inference.exports import labeled_texts
from kovar.registry import Registry
from tiny_export import NUM_HELD_OUT, NUM_ROWS, builder_of

ALLOWED = 0.2


@pytest.fixture
def builder(exported) -> Iterator[ExportBuilder]:
    with Registry.open(exported.settings) as registry:
        yield builder_of(
            exported.settings, exported.version, registry, rows=exported.rows, loss=ALLOWED
        )


def made(builder: ExportBuilder, form: str) -> Export:
    artifact = builder.ensure(ExportForm.of(form))
    return Export(artifact.manifest, builder.registry.materialize_derived(artifact))


@pytest.mark.parametrize(
    ("form", "engine"),
    [("int8-dynamic", "onnx"), ("int8-static", "onnx"), ("int8-static", "openvino")],
)
def test_int8_keeps_the_accuracy_and_answers_nearly_as_the_version(builder, exported, form, engine):
    export = made(builder, form)
    assert export.accuracy.num_rows == NUM_HELD_OUT
    assert export.accuracy.loss <= ALLOWED
    options = {"precision": "int8", "max_accuracy_loss": ALLOWED, "require_golden": True}
    runtime = load_runtime(exported.folder, runtime=engine, exports=[export], **options)
    assert (runtime.name, runtime.precision) == (engine, "int8")
    (answer,) = load_runtime(exported.folder, runtime="torch", precision="fp32").predict(["fine"])
    assert runtime.predict(["fine"])[0].scores == pytest.approx(answer.scores, abs=0.05)


def test_an_export_that_loses_more_than_is_allowed_is_not_stored(builder, exported):
    strict = builder_of(
        exported.settings, exported.version, builder.registry, rows=exported.rows, loss=-1.0
    )
    known = builder.registry.derived(builder.version)
    with pytest.raises(SpecError, match=r"loses .* against") as refusal:
        strict.build(ExportForm("int8", "dynamic"))
    assert refusal.value.field == "max_accuracy_loss"
    assert builder.registry.derived(builder.version) == known


def test_the_texts_are_those_that_the_run_held_out(exported):
    cache_dir = exported.settings.cache_dir
    texts = labeled_texts(exported.version, cache_dir=cache_dir, base_dir=exported.rows)
    assert (len(texts.texts), len(texts.calibration)) == (NUM_HELD_OUT, NUM_ROWS - NUM_HELD_OUT)
    assert texts.truth.shape == (NUM_HELD_OUT, 2)
    assert (texts.truth.sum(axis=1) == 1).all()


def test_data_that_is_not_there_is_named(exported, tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        labeled_texts(exported.version, cache_dir=exported.settings.cache_dir, base_dir=tmp_path)
