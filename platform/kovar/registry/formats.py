"""Which files may enter the registry: safetensors, ONNX, JSON, text, Parquet and Arrow.

The content decides, not only the name: a pickle runs code when it is loaded, whatever it is called.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from kovar.config import format_size
from kovar.errors import NotFoundError, RegistryError, UnsafeArtifactError
from kovar.registry.manifest import check_path

MAX_FILES: Final = 10_000
MAX_TEXT_BYTES: Final = 256 << 20
MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors format itself."""

_TEXT_SUFFIXES: Final = (".txt", ".md", ".vocab", ".merges", ".jinja", ".yaml", ".yml", ".csv")
_TEXT_NAMES: Final = ("LICENSE", "NOTICE", "README")
_ALLOWED: Final = (
    f".safetensors, .onnx, .json, .jsonl, .parquet, .arrow and text ({', '.join(_TEXT_SUFFIXES)})"
)
_CONTROL: Final = frozenset(map(chr, range(32))) - frozenset("\t\n\r\f")
_BITS: Final = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
# The opcodes with which a pickle calls something.
_CALLS: Final = frozenset(("REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"))


@dataclass(frozen=True)
class SourceFile:
    """A regular file inside a folder that is about to be registered."""

    path: str
    """Path inside the version."""
    location: Path
    size_bytes: int


def scan_folder(folder: Path) -> list[SourceFile]:
    """List the files of a folder, sorted by path, after checking each of them.

    Raises:
        NotFoundError: the folder does not exist or is empty.
        UnsafeArtifactError: a symbolic link, a device, a pickle or another format.
        RegistryError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise NotFoundError("no such folder to register", got=str(folder))
    try:
        files = sorted(_walk(folder, folder), key=lambda file: file.path)
    except OSError as problem:
        raise RegistryError(f"cannot read {problem.filename}: {problem.strerror}") from None
    if not files:
        raise NotFoundError("the folder to register is empty", got=str(folder))
    for file in files:
        with open_regular(file.location) as stream:
            check_content(file.path, stream, file.size_bytes)
    return files


def _walk(folder: Path, root: Path) -> list[SourceFile]:
    files: list[SourceFile] = []
    for location in folder.iterdir():
        path = location.relative_to(root).as_posix()
        status = location.lstat()
        if stat.S_ISDIR(status.st_mode):
            files += _walk(location, root)
        elif stat.S_ISREG(status.st_mode):
            try:
                check_path(path)
            except ValueError as problem:
                raise refusal(path, str(problem)) from None
            files.append(SourceFile(path, location, status.st_size))
        elif stat.S_ISLNK(status.st_mode):
            raise refusal(path, "a symbolic link", hint="copy the file itself: cp -rL")
        else:
            raise refusal(path, "neither a file nor a folder")
        if len(files) > MAX_FILES:
            raise refusal(path, f"a version has at most {MAX_FILES:,} files")
    return files


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; never through a symbolic link, never a device.

    Raises:
        UnsafeArtifactError: it became something else since the folder was listed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise refusal(path.name, f"cannot be opened: {problem.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refusal(path.name, "not a regular file")
    return os.fdopen(descriptor, "rb")


def check_content(path: str, stream: BinaryIO, size_bytes: int) -> None:
    """Check that the content is of the format that the name says.

    Raises:
        UnsafeArtifactError: naming the file and what was found.
    """
    _refuse_code(path, stream)
    name = path.rsplit("/", 1)[-1]
    suffix = Path(name).suffix.lower()
    check = _CHECKS.get(suffix)
    if check is None and name not in _TEXT_NAMES:
        raise refusal(path, f"the format {suffix or name!r} is unknown")
    (check or _check_text)(path, stream, size_bytes)
    stream.seek(0)


def refusal(path: str, what: str, *, hint: str | None = None) -> UnsafeArtifactError:
    """Build the error for one file."""
    return UnsafeArtifactError(
        f"{path} may not enter the registry: {what}",
        hint=hint or f"allowed: {_ALLOWED}; save weights as safetensors",
        path=path,
    )


def _refuse_code(path: str, stream: BinaryIO) -> None:
    head = stream.read(512)
    stream.seek(0)
    # The length at the start of a safetensors file can look like a pickle; a brace follows it.
    safetensors = path.endswith(".safetensors") and head[8:9] == b"{"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and not safetensors:
        raise refusal(path, "a pickle, which runs code when it is loaded")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        raise refusal(path, "a zip archive, as torch.save writes: it holds a pickle")
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        raise refusal(path, "an archive")


def _check_safetensors(path: str, stream: BinaryIO, size_bytes: int) -> None:
    length = int.from_bytes(stream.read(8), "little")
    if size_bytes < 8 or length > min(size_bytes - 8, MAX_HEADER_BYTES):
        raise refusal(path, f"its safetensors header claims {length:,} bytes of {size_bytes:,}")
    try:
        header = json.loads(stream.read(length), object_pairs_hook=_unique)
        spans = sorted(_span(tensor) for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise refusal(path, "its safetensors header cannot be read") from None
    ends = [0, *(end for _, end in spans)]
    whole = ends[-1] == size_bytes - 8 - length
    gapless = all(begin == end for (begin, _), end in zip(spans, ends[:-1], strict=True))
    if not (whole and gapless):
        raise refusal(path, "damaged: its tensors do not cover the file exactly")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a key that appears twice: readers differ in which one they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _span(tensor: dict[str, Any]) -> tuple[int, int]:
    """Return where a tensor begins and ends; its type and shape must need exactly that."""
    begin, end = tensor["data_offsets"]
    shape = tensor["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError("not a size")
    if (end - begin) * 8 != math.prod(shape) * _BITS[tensor["dtype"]]:
        raise ValueError("a tensor's span does not fit its type and shape")
    return begin, end


def _check_onnx(path: str, stream: BinaryIO, size_bytes: int) -> None:
    # Serializers write ModelProto's first field, ir_version, first: tag 0x08 and a small number.
    head = stream.read(2)
    if size_bytes < 16 or head[:1] != b"\x08" or not 1 <= head[1] <= 64:
        raise refusal(path, "not an ONNX model")


def _check_json(path: str, stream: BinaryIO, size_bytes: int) -> None:
    try:
        json.loads(_read_text(path, stream, size_bytes))
    except (ValueError, RecursionError) as problem:
        raise refusal(path, f"not valid JSON: {problem}") from None


def _check_text(path: str, stream: BinaryIO, size_bytes: int) -> None:
    content = _read_text(path, stream, size_bytes)
    if not _CONTROL.isdisjoint(content[:4096]) or "\0" in content:
        raise refusal(path, "binary content under a text name")
    if _calls_code(content):
        raise refusal(path, "a pickle in text form, which runs code when it is loaded")


def _read_text(path: str, stream: BinaryIO, size_bytes: int) -> str:
    if size_bytes > MAX_TEXT_BYTES:
        allowed = format_size(MAX_TEXT_BYTES)
        raise refusal(path, f"text of {format_size(size_bytes)}; at most {allowed}")
    content = stream.read()
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        raise refusal(path, f"not UTF-8 text: {problem.reason}, byte {problem.start}") from None


def _calls_code(content: str) -> bool:
    import pickletools

    called = False
    try:
        for opcode, _, _ in pickletools.genops(content.encode()):
            called = called or opcode.name in _CALLS
    except Exception:  # genops raises whatever the bytes provoke: then they are no pickle
        return False
    return called


def _check_ends(magic: bytes) -> Callable[[str, BinaryIO, int], None]:
    def check(path: str, stream: BinaryIO, size_bytes: int) -> None:
        head = stream.read(len(magic))
        stream.seek(max(0, size_bytes - len(magic)))
        if size_bytes < 2 * len(magic) or head != magic or stream.read() != magic:
            raise refusal(path, f"it does not begin and end with {magic.decode()}")

    return check


_CHECKS: Final[dict[str, Callable[[str, BinaryIO, int], None]]] = {
    ".safetensors": _check_safetensors,
    ".onnx": _check_onnx,
    ".json": _check_json,
    ".parquet": _check_ends(b"PAR1"),
    ".arrow": _check_ends(b"ARROW1"),
    **dict.fromkeys((".jsonl", *_TEXT_SUFFIXES), _check_text),
}
