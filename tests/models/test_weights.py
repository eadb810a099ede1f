from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kovar.errors import ModelError
from kovar.models.weights import read_header, read_weights


def frame(header: Any, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def tensor(start: int, stop: int, *, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_a_header_lists_types_and_shapes(tmp_path: Path) -> None:
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int64)}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    tensors = read_header(tmp_path / "x.safetensors")
    assert (tensors["a"].dtype, tensors["a"].shape, tensors["a"].is_parameter) == (
        "F32",
        (2, 3),
        True,
    )
    assert not tensors["b"].is_parameter


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "fewer than the smallest header"),
        (b"1234", "fewer than the smallest header"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "its header claims"),
        (frame(b"{not json"), "not the JSON of a safetensors file"),
        (frame([1, 2]), "not the JSON of a safetensors file"),
        (frame({"a": {"dtype": "F32"}}), "not the JSON of a safetensors file"),
        (frame({"a": tensor(0, 4, dtype="PICKLE")}, bytes(4)), "not the JSON"),
        (frame({"a": tensor(0, 4, shape=(-1,))}, bytes(4)), "not the JSON"),
        (frame({"a": tensor(0, 8)}, bytes(8)), "'a' has 8 bytes instead of 4"),
        (frame({"a": tensor(4, 8)}, bytes(8)), "a gap before 'a'"),
        (frame({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)), "an overlap before 'b'"),
        (frame({"a": tensor(0, 4)}, bytes(3)), "it is truncated"),
        (frame({"a": tensor(0, 4)}, bytes(5)), "it is too long"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged: ") as caught:
        read_header(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_truncation_is_noticed_at_every_offset(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="damaged"):
            read_weights(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can run code when it is loaded"):
        read_weights(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        read_weights(folder)


def shard(folder: Path) -> dict[str, str]:
    """Replace the weights of a folder by two shards and an index."""
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(arrays)
    places = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({n: arrays[n] for n in names if places[n] == file}, folder / file)
    write_index(folder, places)
    return places


def write_index(folder: Path, places: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards_are_read_through_their_index(folder: Path) -> None:
    _, expected = read_weights(folder)
    shard(folder)
    files, tensors = read_weights(folder)
    assert tensors == expected
    assert [file.suffix for file in files] == [".safetensors", ".safetensors", ".json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda places: places | {"extra": next(iter(places.values()))}, "no shard holds 'extra'"),
        (
            lambda places: places | {"x": "gone.safetensors"},
            "the shard gone.safetensors is missing",
        ),
        (lambda places: places | {"x": "../x.safetensors"}, "outside the folder"),
    ],
)
def test_a_wrong_index_is_refused(
    change: Callable[[dict[str, str]], dict[str, str]], message: str, folder: Path
) -> None:
    write_index(folder, change(shard(folder)))
    with pytest.raises(ModelError, match="damaged: ") as caught:
        read_weights(folder)
    assert message in str(caught.value)
