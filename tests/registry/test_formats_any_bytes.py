"""Whatever the bytes are: a file is accepted or refused by name, and what is accepted loads."""

import json
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kovar.errors import UnsafeArtifactError
from kovar.registry.formats import open_regular, scan_folder

NAMES = ["a.safetensors", "a.onnx", "a.json", "a.jsonl", "a.txt", "a.parquet", "a.arrow", "a.bin"]
TYPES = [np.float32, np.float16, np.int64, np.int8, np.uint16, np.bool_]

examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
tensors = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8),
    st.sampled_from(TYPES).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_side=0, max_side=4))
    ),
    min_size=1,
    max_size=4,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner),
    max_leaves=5,
)


class Call:
    """Runs a function when it is unpickled."""

    def __init__(self, arguments) -> None:
        self.arguments = arguments

    def __reduce__(self):
        return print, tuple(self.arguments)


def accepts(folder, name: str, content: bytes) -> bool:
    """Whether a folder with this one file may be registered; no other error may come out.

    A refusal that does not name the file counts as none, so that it fails the test.
    """
    (folder / name).write_bytes(content)
    try:
        scan_folder(folder)
    except UnsafeArtifactError as refused:
        return name not in refused.message
    finally:
        (folder / name).unlink()
    return True


def loads(folder, content: bytes) -> bool:
    """Whether the safetensors library reads every tensor."""
    (folder / "loaded").write_bytes(content)
    try:
        with safe_open(folder / "loaded", "np") as opened:
            for name in opened.keys():  # noqa: SIM118
                opened.get_tensor(name)
    except SafetensorError:
        return False
    finally:
        (folder / "loaded").unlink()
    return True


@examples
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=600))
def test_any_bytes_are_accepted_or_refused_by_name(tmp_path, name, content):
    accepts(tmp_path, name, content)


@examples
@given(name=st.sampled_from(NAMES), inside=st.lists(plain, max_size=3), protocol=st.integers(0, 5))
def test_a_pickle_that_calls_something_is_refused_under_every_name(
    tmp_path, name, inside, protocol
):
    content = pickle.dumps([inside, Call(inside)], protocol=protocol)
    assert not accepts(tmp_path, name, content)
    assert not accepts(tmp_path, name, pickletools.optimize(content))


@examples
@given(tensors)
def test_whatever_safetensors_saves_is_accepted(tmp_path, saved):
    assert accepts(tmp_path, "a.safetensors", save(saved))


@examples
@given(tensors, st.data())
def test_a_safetensors_file_with_changed_bytes_is_refused_or_loads(tmp_path, saved, data):
    content = bytearray(save(saved))
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for changed in (bytes(content), bytes(content[:cut])):
        assert not accepts(tmp_path, "a.safetensors", changed) or loads(tmp_path, changed)


@pytest.mark.parametrize("length", [1 << 32, 1 << 63, (1 << 64) - 1, 100_000_001])
def test_a_header_that_claims_too_much_is_refused_before_it_is_read(tmp_path, length):
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(length.to_bytes(8, "little") + b"{")
        file.truncate(200_000_000)
    with pytest.raises(UnsafeArtifactError, match=f"header claims {length:,} bytes"):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "object", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
    ],
)
def test_a_tensor_whose_span_does_not_fit_its_shape_is_refused(tmp_path, tensor):
    header = json.dumps({"w": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    assert not accepts(tmp_path, "a.safetensors", content)


def test_a_header_with_one_key_twice_is_refused(tmp_path):
    tensor = b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + tensor + b"," + tensor + b"}"
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    assert not accepts(tmp_path, "a.safetensors", content)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/urandom"])
def test_a_device_is_never_opened_as_a_file(device):
    with pytest.raises(UnsafeArtifactError, match="not a regular file"):
        open_regular(Path(device))
