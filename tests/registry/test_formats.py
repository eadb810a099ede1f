"""What may enter the registry, and what may not."""

import gzip
import json
import os
import pickle
import socket
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kovar.errors import NotFoundError, UnsafeArtifactError
from kovar.registry.formats import scan_folder

ONNX = b"\x08\x0a\x12\x05kovar" + bytes(16)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def safetensors(header, data=b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def test_a_model_folder_is_listed_with_sizes_sorted_by_path(folder):
    found = {file.path: file.size_bytes for file in scan_folder(folder)}
    assert list(found) == ["config.json", "model.safetensors", "tokenizer/vocab.txt"]
    assert found["model.safetensors"] == (folder / "model.safetensors").stat().st_size


def test_onnx_parquet_arrow_and_a_licence_are_accepted(tmp_path):
    table = pa.table({"a": [1]})
    pq.write_table(table, tmp_path / "data.parquet")
    with pa.ipc.new_file(tmp_path / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "model.onnx").write_bytes(ONNX)
    (tmp_path / "LICENSE").write_text("Apache-2.0")
    assert len(scan_folder(tmp_path)) == 4


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["model.bin", "config.json", "notes.txt", "model.safetensors"])
def test_a_pickle_is_refused_under_any_name(tmp_path, protocol, name):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(UnsafeArtifactError, match=f"{name} may not enter"):
        scan_folder(tmp_path)


def test_what_torch_save_writes_is_called_by_its_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(UnsafeArtifactError, match=r"torch\.save writes: it holds a pickle"):
        scan_folder(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "run.py", "model.pt", "data.csv.gz", ".DS_Store"])
def test_an_unknown_format_is_refused_with_what_is_allowed(tmp_path, name):
    (tmp_path / name).write_text("text")
    with pytest.raises(UnsafeArtifactError, match=r"allowed: \.safetensors"):
        scan_folder(tmp_path)


def test_an_archive_under_a_text_name_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(gzip.compress(b"a"))
    with pytest.raises(UnsafeArtifactError, match="an archive"):
        scan_folder(tmp_path)


@pytest.mark.parametrize("target", ["/etc/passwd", "config.json", "nowhere"])
def test_a_symbolic_link_is_refused(folder, target):
    (folder / "link.json").symlink_to(target)
    with pytest.raises(UnsafeArtifactError, match=r"link\.json .* a symbolic link"):
        scan_folder(folder)


def test_a_linked_folder_is_refused(folder, tmp_path):
    (folder / "more").symlink_to(tmp_path)
    with pytest.raises(UnsafeArtifactError, match=r"more may not enter .* symbolic link"):
        scan_folder(folder)


def test_a_pipe_and_a_socket_are_refused(folder):
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(UnsafeArtifactError, match="neither a file nor a folder"):
        scan_folder(folder)
    (folder / "pipe.json").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.json"))
        with pytest.raises(UnsafeArtifactError, match="neither a file nor a folder"):
            scan_folder(folder)


def test_a_name_with_a_control_character_is_refused(folder):
    (folder / "a\nb.json").write_text("{}")
    with pytest.raises(UnsafeArtifactError, match="printable characters"):
        scan_folder(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        (1 << 60).to_bytes(8, "little") + b"{}",
        safetensors(b"not json"),
        safetensors([1]),
        safetensors({"w": {"data_offsets": [0, 8]}}, bytes(4)),
        safetensors({"w": {"data_offsets": [4, 8]}}, bytes(8)),
        safetensors({"w": {"data_offsets": [0, 4]}}, bytes(8)),
        safetensors({"w": {"data_offsets": "ab"}}),
        safetensors({"w": {"data_offsets": [0]}}),
        safetensors({"w": {}}),
    ],
)
def test_a_damaged_safetensors_header_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UnsafeArtifactError, match="safetensors"):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"{"),
        ("a.json", b"\xff\xfe"),
        ("a.json", b"[" * 100_000),
        ("a.txt", b"a\0b"),
        ("a.txt", b"\x1b[31m"),
        ("a.txt", b"\xff"),
        ("a.onnx", b"{" * 64),
        ("a.parquet", b"PAR1"),
        ("a.arrow", b"ARROW1" + bytes(20)),
    ],
)
def test_content_of_another_format_than_the_name_says_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsafeArtifactError, match="may not enter"):
        scan_folder(tmp_path)


def test_a_missing_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(NotFoundError, match="no such folder"):
        scan_folder(tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="is empty"):
        scan_folder(tmp_path)
