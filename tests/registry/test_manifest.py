"""The manifest: one identity per content, and paths that stay inside."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kovar.registry import FileEntry, Manifest, VersionFacts
from kovar.registry.manifest import check_path

FILE = FileEntry(path="config.json", size_bytes=2, sha256="0" * 64)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
)  # fmt: skip


def facts_of(**fields) -> VersionFacts:
    base = {"method": "full", "precision": "fp32", "seed": 0, "spec": {}, "metrics": {}}
    base["environment"] = {"python": "3.11", "packages": {}, "chip": "a CPU"}
    base["signature"] = {"task": "text-classification"}
    return VersionFacts.model_validate_json(json.dumps(base | fields))


@settings(max_examples=40, deadline=None)
@given(spec=st.dictionaries(st.text("abc"), PLAIN))
def test_a_stored_manifest_reads_back_with_the_same_digest(spec):
    manifest = Manifest.of(facts_of(spec=spec), [FILE])
    again = Manifest.model_validate_json(manifest.to_bytes())
    assert again == manifest
    assert again.digest == manifest.digest


@settings(max_examples=40, deadline=None)
@given(spec=st.dictionaries(st.text("abcdef"), PLAIN, min_size=2))
def test_the_order_of_keys_and_files_does_not_change_the_digest(spec):
    other = FileEntry(path="vocab.txt", size_bytes=1, sha256="1" * 64)
    turned = dict(reversed(spec.items()))
    one = Manifest.of(facts_of(spec=spec), [FILE, other])
    assert one.digest == Manifest.of(facts_of(spec=turned), [other, FILE]).digest


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"precision": "bf16"}, {"metrics": {"a": {"f1": 0.5}}}, {"limits": "English"}],
)
def test_any_other_fact_is_another_version(change):
    changed = Manifest.of(facts_of(**change), [FILE])
    assert changed.digest != Manifest.of(facts_of(), [FILE]).digest


def test_a_field_at_its_default_leaves_no_trace_in_the_digest():
    assert b"limits" not in Manifest.of(facts_of(), [FILE]).to_bytes()
    stated = Manifest.of(facts_of(limits="", parents=[]), [FILE])
    assert stated.digest == Manifest.of(facts_of(), [FILE]).digest


def test_the_digest_of_a_known_manifest_never_changes():
    digest = "f43f3bb58587825632e3c7c0cd0525aa38253d5c8e095f8f0d3cb7a91867ad6e"
    assert Manifest.of(facts_of(spec={"a": [1, 0.5, "é"]}), [FILE]).digest == digest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_a_fact_without_a_json_form_is_refused(value):
    with pytest.raises(ValidationError):
        VersionFacts.model_validate(facts_of().model_dump() | {"spec": {"a": value}})


def test_a_file_may_not_appear_twice():
    with pytest.raises(ValidationError, match="each path appears once"):
        Manifest.of(facts_of(), [FILE, FILE])


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a\\b", "a\nb", "a\0b", "x" * 999]
)
def test_a_path_that_leaves_the_version_is_refused(path):
    with pytest.raises(ValidationError, match="inside a version"):
        FileEntry(path=path, size_bytes=0, sha256="0" * 64)


@given(st.text("ab./\\\0 ", max_size=12))
def test_an_accepted_path_stays_inside(path):
    try:
        check_path(path)
    except ValueError:
        return
    assert not PurePosixPath(path).is_absolute()
    assert ".." not in PurePosixPath(path).parts
    assert str(PurePosixPath(path)) == path
