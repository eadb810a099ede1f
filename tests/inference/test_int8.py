"""Exports in int8: judged by the labeled texts of the version's own run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from kovar.errors import DataError, SpecError
from kovar.inference import Export, ExportBuilder, ExportForm, load_runtime
from kovar.inference.exports import labeled_texts
from kovar.inference.exports.labeled import spread_rows
from kovar.registry import Registry, Version
from kovar.registry.manifest import DataFacts, SplitFacts
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


def with_held_out_file(version: Version, **facts: object) -> Version:
    """Return the version as if it had been evaluated on a file of its own."""
    data = DataFacts(
        source="rows.jsonl",
        fingerprint="0",
        split=SplitFacts(num_train=60, num_evaluation=60, seed=0),
        details={"evaluation_source": facts},
    )
    spec = {"data": {"source": "rows.jsonl", "evaluation": {"source": "judged.jsonl"}}}
    manifest = version.manifest.model_copy(update={"data": data, "spec": spec})
    return replace(version, manifest=manifest)


def test_texts_of_another_file_than_in_the_run_judge_nothing(exported, tmp_path):
    for name in ("rows.jsonl", "judged.jsonl"):
        shutil.copy(exported.rows / "rows.jsonl", tmp_path / name)
    places = {"cache_dir": exported.settings.cache_dir, "base_dir": tmp_path}
    with pytest.raises(DataError, match="not the rows") as refusal:
        labeled_texts(with_held_out_file(exported.version, content_sha256="0" * 64), **places)
    assert refusal.value.field == "data.evaluation.source"
    texts = labeled_texts(with_held_out_file(exported.version), **places)
    assert len(texts.texts) == NUM_ROWS


def test_the_judges_of_a_sorted_file_have_all_labels():
    table = pa.table({"label": ["negative"] * 50 + ["positive"] * 50})
    assert spread_rows(table, 10).column("label").to_pylist() == table["label"].to_pylist()[::10]
    assert spread_rows(table, 100) is table


def test_data_that_is_not_there_is_named(exported, tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        labeled_texts(exported.version, cache_dir=exported.settings.cache_dir, base_dir=tmp_path)
