from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kovar.data import split_rows

TEXTS = [f"text {number}" for number in range(200)]


@given(st.lists(st.text(), min_size=2, max_size=50), st.data())
def test_every_row_is_on_one_side_and_the_number_is_exact(
    texts: list[str], data: st.DataObject
) -> None:
    wanted = data.draw(st.integers(1, len(texts) - 1))
    train, evaluation = split_rows(texts, num_evaluation=wanted, seed=0)
    assert len(evaluation) == wanted
    assert sorted([*train, *evaluation]) == list(range(len(texts)))


def test_the_split_never_changes() -> None:
    _, evaluation = split_rows(TEXTS, num_evaluation=8, seed=0)
    assert evaluation.tolist() == [41, 44, 46, 71, 88, 100, 132, 138]


def test_another_seed_is_another_split() -> None:
    first, second = (split_rows(TEXTS, num_evaluation=50, seed=seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_the_order_of_the_rows_does_not_matter() -> None:
    _, rows = split_rows(TEXTS, num_evaluation=50, seed=0)
    _, reversed_rows = split_rows(TEXTS[::-1], num_evaluation=50, seed=0)
    assert {TEXTS[row] for row in rows} == {TEXTS[::-1][row] for row in reversed_rows}


def test_equal_texts_fall_on_the_same_side() -> None:
    train, evaluation = split_rows(TEXTS * 2, num_evaluation=100, seed=0)
    assert not {row % 200 for row in train} & {row % 200 for row in evaluation}
