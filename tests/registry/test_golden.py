"""Golden examples: what was evaluated is what is served."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.errors import GoldenError
from kovar.registry import (
    GoldenExample,
    GoldenExamples,
    check_golden,
    read_golden,
    write_golden,
)

SECRET = "what nobody may log"


@dataclass
class Answer:
    label: str
    scores: dict[str, float]


def answer(positive: float, label: str | None = None) -> Answer:
    chosen = label or ("positive" if positive > 0.5 else "negative")
    return Answer(chosen, {"positive": positive, "negative": 1 - positive})


def golden(*positives: float) -> GoldenExamples:
    answers = [answer(each) for each in positives]
    return GoldenExamples(
        labels=("negative", "positive"),
        examples=tuple(GoldenExample(text=SECRET, **vars(each)) for each in answers),
    )


def test_what_is_written_is_read(tmp_path):
    write_golden(golden(0.9, 0.2), tmp_path)
    assert read_golden(tmp_path) == golden(0.9, 0.2)


def test_the_largest_difference_is_returned():
    found = check_golden(golden(0.9, 0.2), [answer(0.9), answer(0.21)], tolerance=0.05)
    assert found == pytest.approx(0.01)


def test_the_worst_example_and_its_difference_are_named_but_never_the_text():
    answers = [answer(0.89), answer(0.3), answer(0.5)]
    with pytest.raises(GoldenError, match=r"example 1: a score differs by 0\.1") as caught:
        check_golden(golden(0.9, 0.2, 0.5), answers, tolerance=0.05)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.context)


@given(st.integers(0, 2), st.floats(0.06, 0.4))
def test_a_difference_beyond_the_tolerance_is_found_wherever_it_is(index, difference):
    answers = [answer(0.5)] * 3
    answers[index] = answer(0.5 + difference)
    with pytest.raises(GoldenError, match=f"example {index}"):
        check_golden(golden(0.5, 0.5, 0.5), answers, tolerance=0.05)


def test_a_score_that_is_not_a_number_is_an_infinite_difference():
    with pytest.raises(GoldenError, match="example 1: a score differs by inf"):
        check_golden(golden(0.9, 0.9), [answer(0.9), answer(float("nan"))], tolerance=1)


def test_a_label_that_contradicts_its_scores_is_refused():
    with pytest.raises(GoldenError, match="example 0: the runtime's label contradicts"):
        check_golden(golden(0.9), [answer(0.9, "negative")], tolerance=0.05)


def test_a_tie_may_fall_either_way():
    check_golden(golden(0.501), [answer(0.499)], tolerance=0.01)


def test_other_labels_and_another_count_are_refused():
    with pytest.raises(GoldenError, match="scores other labels"):
        check_golden(golden(0.9), [Answer("good", {"good": 1.0})], tolerance=0.05)
    with pytest.raises(GoldenError, match="0 predictions for 1"):
        check_golden(golden(0.9), [], tolerance=0.05)


def test_a_version_without_golden_examples_says_so(tmp_path):
    with pytest.raises(GoldenError, match=r"no golden\.json"):
        read_golden(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[", '{"labels": ["a", "b"], "examples": []}'])
def test_a_damaged_file_is_named_without_its_content(tmp_path, content):
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(GoldenError, match=r"golden\.json: "):
        read_golden(tmp_path)


def test_scores_must_cover_the_labels():
    example = GoldenExample(text="a", label="positive", scores={"positive": 1.0})
    with pytest.raises(ValueError, match="example 0 does not score exactly the labels"):
        GoldenExamples(labels=("negative", "positive"), examples=(example,))
