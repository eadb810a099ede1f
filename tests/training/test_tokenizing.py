from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from kovar.data import DataSpec, TokenizedDataset, prepare_dataset
from kovar.data.dataset import OrderedMap
from kovar.training.tokenizing import (
    FEWEST_CALLS,
    cluster_map,
    num_cpu_nodes,
    tokenizing_map,
)
from tiny import build_tiny_tokenizer

Prepare = Callable[[str, OrderedMap], TokenizedDataset]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    tokenizer = build_tiny_tokenizer(tmp_path / "tokenizer")
    rows = 20_000
    texts = [f"a very good movie {n}" for n in range(rows)]
    table = pa.table({"text": texts, "label": np.arange(rows) % 2})
    parquet.write_table(table, tmp_path / "rows.parquet")

    def prepare(cache: str, ordered_map: OrderedMap) -> TokenizedDataset:
        return prepare_dataset(
            DataSpec(source="rows.parquet", evaluation=1000, max_length=8),
            tokenizer_dir=tokenizer,
            cache_dir=tmp_path / cache,
            base_dir=tmp_path,
            ordered_map=ordered_map,
        )

    return prepare


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_tokenizes_what_one_process_does(prepare: Prepare) -> None:
    alone = prepare("alone", map)
    together = prepare("together", partial(cluster_map, fewest_calls=1))
    assert together.fingerprint == alone.fingerprint
    for path in alone.folder.iterdir():
        assert (together.folder / path.name).read_bytes() == path.read_bytes()


def test_few_rows_are_tokenized_by_the_process_itself() -> None:
    calls: Iterator[int] = iter(range(FEWEST_CALLS - 1))
    assert list(cluster_map(str, calls)) == list(map(str, range(FEWEST_CALLS - 1)))  # type: ignore[arg-type]


@pytest.mark.usefixtures("ray_session")
def test_one_node_has_its_tokenizer_use_all_cores() -> None:
    assert tokenizing_map() is map


def test_dead_nodes_and_heads_without_cpus_tokenize_nothing() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"memory": 1.0}},
        {"Alive": False, "Resources": {}},
    ]
    assert num_cpu_nodes(nodes) == 1
