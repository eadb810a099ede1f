"""Exports: traced once, checked, kept beside the version; answers as those of torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kovar.errors import DataError, GoldenError, SpecError
from kovar.inference import ClassifierRuntime, Export, ExportForm, load_runtime
from kovar.registry import Registry, Version
from kovar.settings import Settings
from tiny_export import build_export, builder_of
from tiny_version import build_tiny_version, register_tiny_version, settings_in

TEXTS = ["i loved it", "a dull story and the acting is awful", "fine", ("the plot", "is bad")]

ENGINES = ["onnx", pytest.param("openvino", marks=pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
))]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return settings_in(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def version(settings, tmp_path_factory) -> Version:
    folder = build_tiny_version(tmp_path_factory.mktemp("version") / "tiny")
    return register_tiny_version(settings, folder)


@pytest.fixture(scope="module")
def export(settings, version) -> Export:
    return build_export(settings, version)


@pytest.fixture(scope="module")
def folder(settings, version) -> Path:
    with Registry.open(settings) as registry:
        return registry.materialize(version)


@pytest.fixture(scope="module")
def reference(folder) -> ClassifierRuntime:
    return load_runtime(folder, runtime="torch", precision="fp32")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, folder, export) -> ClassifierRuntime:
    return load_runtime(
        folder, runtime=request.param, precision="fp32", exports=[export], require_golden=True
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


def test_an_export_that_is_there_is_not_made_again(settings, version, export):
    again = build_export(settings, version)
    assert again.manifest.digest == export.manifest.digest


def test_an_export_notes_that_it_reproduced_the_golden_examples(settings, version, export):
    with Registry.open(settings) as registry:
        (artifact,) = builder_of(settings, version, registry).found().values()
    assert artifact.golden is not None
    assert artifact.golden.passed
    assert artifact.golden.difference < 1e-5


def test_an_export_says_nothing_of_where_it_was_made(export):
    content = export.path.read_bytes()
    assert b"site-packages" not in content
    assert b"/modeling_bert.py" not in content


def test_an_export_that_answers_otherwise_is_not_stored(tmp_path):
    settings = settings_in(tmp_path)
    folder = build_tiny_version(tmp_path / "tiny", shift=0.01)
    version = register_tiny_version(settings, folder)
    with pytest.raises(GoldenError):
        build_export(settings, version)
    with Registry.open(settings) as registry:
        assert registry.derived(version) == ()


def test_int8_is_refused_for_a_version_that_names_no_labeled_texts(settings, version):
    with pytest.raises(DataError, match="which labeled texts"):
        build_export(settings, version, "int8-dynamic")


def test_an_export_is_only_for_versions_that_classify_texts(settings, version):
    signature = version.manifest.signature.model_copy(update={"task": "causal-lm"})
    manifest = version.manifest.model_copy(update={"signature": signature})
    other = Version(**(vars(version) | {"manifest": manifest}))
    with Registry.open(settings) as registry, pytest.raises(SpecError, match="causal-lm"):
        builder_of(settings, other, registry).ensure(ExportForm("fp32"))
