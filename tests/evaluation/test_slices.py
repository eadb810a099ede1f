import numpy as np
import pytest

from kovar.evaluation import column_slices, length_slices, slice_metrics
from kovar.registry.interval import wilson


def test_lengths_fall_into_buckets_whose_upper_edge_belongs_to_them():
    names = length_slices([1, 16, 17, 32, 33], edges=(16, 32))
    assert names == ["1 to 16", "1 to 16", "17 to 32", "17 to 32", "over 32"]


def test_rare_values_of_a_long_column_share_a_slice():
    values = [*(f"frequent {i}" for i in range(19)), *(f"frequent {i}" for i in range(19))]
    names = column_slices([*values, None, "rare"])
    assert names[-2:] == ["(2 other values)"] * 2
    assert len(set(names)) == 20
    assert column_slices([1, None]) == ["1", "(none)"]


def test_each_slice_has_its_own_numbers():
    true, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1])
    groups = {"length": ["10 to 16", "10 to 16", "1 to 9", "1 to 9", "over 16"]}
    found = slice_metrics(true, predicted, groups)
    assert [one.value for one in found] == ["1 to 9", "10 to 16", "over 16"]
    assert [one.num_rows for one in found] == [2, 2, 1]
    assert [one.accuracy for one in found] == [1.0, 0.5, 1.0]
    assert found[1].accuracy_interval == wilson(0.5, 2)


def test_a_label_that_a_slice_lacks_does_not_pull_its_f1_down():
    (found,) = slice_metrics(np.array([1, 1]), np.array([1, 1]), {"by": ["a", "a"]})
    assert found.macro_f1 == pytest.approx(1.0)
