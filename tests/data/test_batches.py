from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kovar.data import LADDER, Batch, EpochBatches, bucket_length, collate, deal, make_batches

GOLDEN = [([7, 3], 24), ([1, 6, 8], 16), ([9], 40), ([0, 2, 4, 11, 10, 5], 8)]
GOLDEN_DIGEST = "1f8c75957a0e58ea2d9857be345671f2f24cd97768808786d70926ac16e95bc4"

some_lengths = st.lists(st.integers(1, 300), min_size=1, max_size=400)


def batches_of(
    lengths: Sequence[int], *, seed: int = 0, epoch: int = 0, max_tokens: int = 1024
) -> EpochBatches:
    return make_batches(
        np.array(lengths, dtype=np.int32),
        fingerprint="f" * 64,
        seed=seed,
        epoch=epoch,
        max_tokens=max_tokens,
        max_length=300,
    )


def as_lists(batches: Sequence[Batch]) -> list[tuple[list[int], int]]:
    return [(batch.rows.tolist(), batch.length) for batch in batches]


def test_the_ladder_has_short_steps_first_and_ends_at_8192() -> None:
    assert LADDER[:10] == (8, 16, 24, 32, 40, 48, 56, 64, 80, 96)
    assert LADDER[-1] == 8192
    assert all(low < high <= low * 2 for low, high in itertools.pairwise(LADDER))


@pytest.mark.parametrize(
    ("num_tokens", "max_length", "expected"),
    [(1, 128, 8), (8, 128, 8), (9, 128, 16), (65, 128, 80), (99, 100, 100), (8192, 8192, 8192)],
)
def test_a_row_is_padded_to_the_next_rung(num_tokens: int, max_length: int, expected: int) -> None:
    assert bucket_length(num_tokens, max_length) == expected


@pytest.mark.parametrize(("num_tokens", "max_length"), [(0, 8), (9, 8), (9000, 9000)])
def test_a_row_beyond_its_limits_has_no_bucket(num_tokens: int, max_length: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        bucket_length(num_tokens, max_length)


@given(some_lengths, st.integers(0, 5), st.integers(300, 5000))
@settings(deadline=None)
def test_every_row_is_in_exactly_one_batch_within_the_budget(
    lengths: list[int], epoch: int, max_tokens: int
) -> None:
    batches = batches_of(lengths, epoch=epoch, max_tokens=max_tokens)
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch.rows)
        assert batch.longest == longest <= batch.length <= bucket_length(longest, 300)
        assert len(batch.rows) * batch.length <= max_tokens


def test_few_batches_are_small_and_little_is_padding() -> None:
    lengths = [6 + row % 50 + row % 7 for row in range(3000)]
    batches = batches_of(lengths)
    small = [batch for batch in batches if len(batch.rows) * batch.length < 512]
    padded = sum(len(batch.rows) * batch.longest for batch in batches)
    assert len(small) <= 1
    assert 1 - sum(lengths) / padded < 0.02


@given(some_lengths, st.integers(1, 9))
@settings(deadline=None)
def test_dealing_gives_each_row_to_one_rank_in_even_parts(lengths: list[int], world: int) -> None:
    for batch in batches_of(lengths):
        hands = [deal(batch, rank, world) for rank in range(world)]
        assert sorted(np.concatenate(hands).tolist()) == sorted(batch.rows.tolist())
        sizes = [len(hand) for hand in hands]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rank", [-1, 2])
def test_dealing_to_a_rank_outside_the_world_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match="world of 2"):
        deal(batches_of([5])[0], rank, 2)


def test_epochs_seeds_and_data_sets_have_batches_of_their_own() -> None:
    lengths = [5 + row % 90 for row in range(500)]
    first = as_lists(batches_of(lengths))
    assert first == as_lists(batches_of(lengths))
    assert first != as_lists(batches_of(lengths, epoch=1))
    assert first != as_lists(batches_of(lengths, seed=1))


def test_rare_long_rows_change_neighbours_between_epochs() -> None:
    lengths = list(range(130, 300))
    groups = [
        {frozenset(batch.rows.tolist()) for batch in batches_of(lengths, epoch=epoch)}
        for epoch in (0, 1)
    ]
    assert len(groups[0] & groups[1]) < len(groups[0]) / 2


def test_the_sequence_of_batches_never_changes() -> None:
    """Interrupted runs resume by this sequence: a change here is a change of the format."""
    lengths = [3, 9, 4, 17, 5, 8, 12, 16, 15, 40, 7, 6]
    assert as_lists(batches_of(lengths, max_tokens=48)) == GOLDEN
    many = [5 + (row * row) % 250 for row in range(3000)]
    text = repr(as_lists(batches_of(many, seed=7, epoch=3, max_tokens=2048))).encode()
    assert hashlib.sha256(text).hexdigest() == GOLDEN_DIGEST


def test_other_processes_and_hash_seeds_form_the_same_batches() -> None:
    code = (
        "import numpy as np; from kovar.data import make_batches; "
        "print([b.rows.tolist() for b in make_batches(np.arange(1, 200, dtype=np.int32), "
        "fingerprint='f', seed=1, epoch=2, max_tokens=512, max_length=256)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1


def test_no_rows_form_no_batches() -> None:
    assert len(batches_of([])) == 0


@pytest.mark.parametrize("lengths", [[5, 0], [5, 301], [290]])
def test_rows_that_do_not_fit_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        batches_of(lengths, max_tokens=256)


class Texts:
    """A split with fixed rows."""

    def input_ids(self, row: int) -> NDArray[np.int32]:
        return np.arange(1, row + 2, dtype=np.int32)


def test_collating_pads_on_the_right_and_masks_the_padding() -> None:
    arrays = collate(Texts(), np.array([1, 3]), length=5, pad_id=9)
    assert arrays["input_ids"].tolist() == [[1, 2, 9, 9, 9], [1, 2, 3, 4, 9]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert arrays["input_ids"].dtype == arrays["attention_mask"].dtype == np.int64


def test_collating_no_rows_gives_empty_arrays() -> None:
    arrays = collate(Texts(), np.array([], dtype=np.int64), length=8, pad_id=0)
    assert arrays["input_ids"].shape == arrays["attention_mask"].shape == (0, 8)


def test_collating_never_cuts_a_row() -> None:
    with pytest.raises(ValueError, match="does not fit into 3"):
        collate(Texts(), np.array([5]), length=3, pad_id=0)
