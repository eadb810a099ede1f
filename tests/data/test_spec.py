from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kovar.config import Config, load_yaml
from kovar.data import DataSpec, EvaluationSource
from kovar.errors import SpecError


class Recipe(Config):
    data: DataSpec


def load(write: Callable[[str, str], Path], *lines: str) -> DataSpec:
    text = "\n".join(["data:", "  source: reviews.csv", *(f"  {line}" for line in lines)])
    return load_yaml(write("recipe.yaml", text), Recipe).data


def test_a_source_is_all_that_a_user_must_name(write: Callable[[str, str], Path]) -> None:
    spec = load(write)
    assert (spec.text, spec.label, spec.evaluation, spec.max_length) == ("text", "label", 0.1, 128)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1605", 1605),
        ("0.25", 0.25),
        ("{source: held-out.csv}", EvaluationSource(source="held-out.csv")),
    ],
)
def test_evaluation_is_a_number_a_share_or_a_source(
    value: str, expected: object, write: Callable[[str, str], Path]
) -> None:
    assert load(write, f"evaluation: {value}").evaluation == expected


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "0.0", "true", "some", "[1]"])
def test_other_values_of_evaluation_are_refused_with_the_line(
    value: str, write: Callable[[str, str], Path]
) -> None:
    with pytest.raises(SpecError, match=r"recipe\.yaml:3: data\.evaluation"):
        load(write, f"evaluation: {value}")


def test_a_misspelled_key_of_the_held_out_source_is_named(
    write: Callable[[str, str], Path],
) -> None:
    with pytest.raises(SpecError) as caught:
        load(write, "evaluation:", "  sorce: held-out.csv")
    assert "recipe.yaml:4: data.evaluation.sorce: unknown key" in str(caught.value)
    assert 'did you mean "source"?' in str(caught.value)


@pytest.mark.parametrize("line", ["max_length: 4", "max_length: 9000", "split_seed: -1"])
def test_lengths_and_seeds_have_limits(line: str, write: Callable[[str, str], Path]) -> None:
    with pytest.raises(SpecError, match=r"recipe\.yaml:3"):
        load(write, line)
