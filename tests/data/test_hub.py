from __future__ import annotations

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value

from kovar.data.hub import to_table


def test_class_numbers_become_names_and_minus_one_no_label() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    table = to_table(Dataset.from_dict(rows, features=features), classes=["label"])
    assert table["label"].to_pylist() == ["good", "bad", None]
    assert table["text"].to_pylist() == ["a", "b", "c"]


def test_labels_that_are_no_classes_stay_as_they_are() -> None:
    dataset = Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]})
    assert to_table(dataset, classes=["label"])["label"].type == pa.int64()
