from __future__ import annotations

from pathlib import Path

import pytest

from kovar.errors import GoldenError
from kovar.inference import load_runtime
from kovar.registry import write_golden
from tiny_version import TEXTS, golden_of


@pytest.fixture
def version(classifier_folder, tmp_path) -> Path:
    for path in classifier_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_runtime_that_reproduces_the_golden_examples_loads(version, runtime):
    write_golden(golden_of(runtime), version)
    assert load_runtime(version, require_golden=True).labels == runtime.labels


def test_a_runtime_that_answers_otherwise_does_not_load(version, runtime):
    write_golden(golden_of(runtime, shift=0.01), version)
    with pytest.raises(GoldenError, match=r"example 0.*0\.01"):
        load_runtime(version, precision="fp32")


def test_half_precision_has_the_wider_tolerance_of_its_format(version, runtime):
    write_golden(golden_of(runtime, shift=0.01), version)
    assert load_runtime(version, precision="bf16").precision == "bf16"


def test_a_version_without_golden_examples_does_not_serve(version):
    with pytest.raises(GoldenError, match=r"golden\.json"):
        load_runtime(version, require_golden=True)


def test_a_golden_error_does_not_quote_the_text(version, runtime):
    write_golden(golden_of(runtime, shift=0.5), version)
    with pytest.raises(GoldenError) as refusal:
        load_runtime(version)
    assert not any(text in str(refusal.value) for text in TEXTS)
