"""Exports: traced once, checked, kept beside the version; answers as those of torch."""

from __future__ import annotations

import numpy as np
import pytest

from kovar.errors import DataError, GoldenError, SpecError
from kovar.inference import ClassifierRuntime, ExportForm, load_runtime
from kovar.registry import Registry, Version
from tiny_export import ExportedVersion, builder_of
from tiny_version import build_tiny_version, register_tiny_version, settings_in

TEXTS = ["i loved it", "a dull story and the acting is awful", "fine", ("the plot", "is bad")]


@pytest.fixture(scope="module")
def reference(exported) -> ClassifierRuntime:
    return load_runtime(exported.folder, runtime="torch", precision="fp32")


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def engine(request, exported: ExportedVersion) -> ClassifierRuntime:
    return load_runtime(
        exported.folder,
        runtime=request.param,
        precision="fp32",
        exports=[exported.export],
        require_golden=True,
    )


def test_an_export_answers_as_torch_does_for_any_number_of_rows_and_tokens(engine, reference):
    for size in (1, 2, 4):
        batch = engine.tokenize(TEXTS[:size])
        np.testing.assert_allclose(engine.scores(batch), reference.scores(batch), atol=1e-5)
    assert [one.label for one in engine.predict(TEXTS)] == [
        one.label for one in reference.predict(TEXTS)
    ]


def test_an_export_embeds_as_torch_does_and_vectors_have_length_one(engine, reference):
    batch = engine.tokenize(TEXTS)
    vectors = engine.embed(batch)
    assert vectors.shape == (4, engine.embedding_size)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, reference.embed(batch), atol=1e-5)


def test_padding_changes_no_embedding(engine):
    batch = engine.tokenize(TEXTS)
    alone = np.concatenate([engine.embed([item]) for item in batch])
    np.testing.assert_allclose(engine.embed(batch), alone, atol=1e-5)


def test_answers_of_an_export_are_explained_by_torch(engine, reference):
    batch = engine.tokenize(TEXTS[:1])
    (here,), (there,) = engine.attribute(batch), reference.attribute(batch)
    assert here.weights == pytest.approx(there.weights)


def test_an_export_that_is_there_is_not_made_again(exported):
    with Registry.open(exported.settings) as registry:
        builder = builder_of(exported.settings, exported.version, registry, rows=exported.rows)
        known = builder.found()[ExportForm("fp32")]
        assert builder.ensure(ExportForm("fp32")).digest == known.digest
        assert known.digest == exported.export.manifest.digest


def test_an_export_notes_that_it_reproduced_the_golden_examples(exported):
    with Registry.open(exported.settings) as registry:
        builder = builder_of(exported.settings, exported.version, registry, rows=exported.rows)
        golden = builder.found()[ExportForm("fp32")].golden
    assert golden is not None
    assert golden.passed
    assert golden.difference < 1e-5


def test_an_export_says_nothing_of_where_it_was_made(exported):
    content = exported.export.path.read_bytes()
    assert b"site-packages" not in content
    assert b"/modeling_bert.py" not in content


def test_an_export_that_answers_otherwise_is_not_stored(tmp_path):
    settings = settings_in(tmp_path)
    folder = build_tiny_version(tmp_path / "tiny", shift=0.01)
    version = register_tiny_version(settings, folder)
    with Registry.open(settings) as registry:
        builder = builder_of(settings, version, registry, rows=tmp_path)
        with pytest.raises(GoldenError):
            builder.ensure(ExportForm("fp32"))
        assert registry.derived(version) == ()


def test_int8_is_refused_for_a_version_that_names_no_labeled_texts(exported):
    settings = exported.settings
    unlabeled = register_tiny_version(settings, exported.folder, model="unlabeled")
    with Registry.open(settings) as registry:
        builder = builder_of(settings, unlabeled, registry, rows=exported.rows)
        with pytest.raises(DataError, match="which labeled texts"):
            builder.ensure(ExportForm("int8", "dynamic"))


def test_an_export_is_only_for_versions_that_classify_texts(exported):
    manifest = exported.version.manifest
    signature = manifest.signature.model_copy(update={"task": "causal-lm"})
    facts = vars(exported.version) | {
        "manifest": manifest.model_copy(update={"signature": signature})
    }
    with Registry.open(exported.settings) as registry:
        builder = builder_of(exported.settings, Version(**facts), registry, rows=exported.rows)
        with pytest.raises(SpecError, match="causal-lm"):
            builder.ensure(ExportForm("fp32"))
