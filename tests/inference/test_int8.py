"""Exports in int8: judged by the labeled texts of the version's own run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kovar.errors import DataError, SpecError
from kovar.inference import ExportBuilder, ExportForm, load_runtime
from kovar.inference.exports import Export, labeled_texts
from kovar.registry import Registry
from tiny import WORDS
from tiny_version import build_tiny_version, register_tiny_version, settings_in

NUM_ROWS, NUM_HELD_OUT = 60, 20
FORMS = ["int8-dynamic", "int8-static"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = [
        {
            "text": " ".join(WORDS[(row * step) % len(WORDS)] for step in range(1, 3 + row % 9)),
            "label": ("negative", "positive")[row % 2],
        }
        for row in range(NUM_ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return settings_in(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def version(settings, tmp_path_factory):
    folder = build_tiny_version(tmp_path_factory.mktemp("version") / "tiny")
    data = {"source": "rows.jsonl", "evaluation": NUM_HELD_OUT}
    return register_tiny_version(settings, folder, spec={"data": data})


@pytest.fixture
def builder(settings, version, rows):
    with Registry.open(settings) as registry:
        yield ExportBuilder(
            registry,
            version,
            cache_dir=settings.cache_dir,
            base_dir=rows,
            max_accuracy_loss=0.2,
        )


@pytest.mark.parametrize("name", FORMS)
def test_int8_keeps_the_accuracy_and_answers_nearly_as_the_version(builder, name):
    artifact = builder.ensure(ExportForm.of(name))
    export = Export(artifact.manifest, builder.registry.materialize_derived(artifact))
    assert export.accuracy.num_rows == NUM_HELD_OUT
    assert export.accuracy.loss <= 0.2
    folder = builder.registry.materialize(builder.version)
    runtime = load_runtime(
        folder, runtime="onnx", precision="int8", max_accuracy_loss=0.2, exports=[export]
    )
    (answer,) = load_runtime(folder, runtime="torch", precision="fp32").predict(["i loved it"])
    assert runtime.predict(["i loved it"])[0].scores == pytest.approx(answer.scores, abs=0.05)


def test_openvino_runs_a_static_export(builder):
    artifact = builder.ensure(ExportForm("int8", "static"))
    export = Export(artifact.manifest, builder.registry.materialize_derived(artifact))
    folder = builder.registry.materialize(builder.version)
    options = {"precision": "int8", "max_accuracy_loss": 0.2, "exports": [export]}
    runtime = load_runtime(folder, runtime="openvino", require_golden=True, **options)
    assert (runtime.name, runtime.precision) == ("openvino", "int8")


def test_an_export_that_loses_more_than_is_allowed_is_not_stored(builder):
    strict = replace(builder, max_accuracy_loss=-1.0)
    known = builder.registry.derived(builder.version)
    with pytest.raises(SpecError, match=r"loses .* against") as refusal:
        strict.build(ExportForm("int8", "dynamic"))
    assert refusal.value.field == "max_accuracy_loss"
    assert builder.registry.derived(builder.version) == known


def test_the_texts_are_those_that_the_run_held_out(settings, version, rows):
    texts = labeled_texts(version, cache_dir=settings.cache_dir, base_dir=rows)
    assert (len(texts.texts), len(texts.calibration)) == (NUM_HELD_OUT, NUM_ROWS - NUM_HELD_OUT)
    assert texts.truth.shape == (NUM_HELD_OUT, 2)
    assert (texts.truth.sum(axis=1) == 1).all()


def test_data_that_is_not_there_is_named(settings, version, tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        labeled_texts(version, cache_dir=settings.cache_dir, base_dir=tmp_path)
