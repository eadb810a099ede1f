"""Strict configuration: one pydantic base, and YAML loading whose errors point at the line."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from kovar.errors import SpecError, UserError, did_you_mean

MAX_FILE_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 100

ModelT = TypeVar("ModelT", bound=BaseModel)
FieldPath = tuple[str | int, ...]


class Config(BaseModel):
    """Base of every settings class: immutable, no unknown fields, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$")
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def parse_size(value: object) -> object:
    """Turn "4GiB" into bytes; leave integers alone; raise ValueError for other text."""
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None:
        raise ValueError('a size is a number of bytes or text such as "512MiB" or "4GiB"')
    return math.ceil(float(match[1]) * _UNITS[match[2]])


SizeBytes = Annotated[int, BeforeValidator(parse_size)]
"""A size in bytes; YAML may say `4GiB`."""


def format_size(size_bytes: float) -> str:
    """Show bytes with a binary unit: 1536 → "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def name_as_kind(value: object) -> object:
    """Let a bare name stand for a block with that `kind` and nothing else: `sgd` → {kind: sgd}.

    What passes through here is validated as Python, where a strict tuple is no list any more.
    """
    if isinstance(value, Mapping):
        return {
            name: tuple(part) if isinstance(part, list) else part for name, part in value.items()
        }
    return {"kind": value} if isinstance(value, str) else value


def format_duration(seconds: float) -> str:
    """Show seconds in the two largest units: 3723 → "1 h 2 min"."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def canonical_json(value: Any) -> bytes:
    """Serialize to the one byte string that digests are computed on.

    Keys sorted, no spaces, UTF-8, no NaN (close to RFC 8785; numbers as Python prints them).
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `5e-5` is a number, `on` and `no` are text; a repeated key is an error."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":bool", ":float", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class Document:
    """A parsed YAML file that knows the line of each field.

    Args:
        path: the file, for messages.
        text: its content.
        error: the error class that mistakes raise.
    """

    def __init__(self, path: Path, text: str, *, error: type[UserError] = SpecError) -> None:
        self.path: Path | None = path
        self.error = error
        self._lines: dict[FieldPath, int] = {}
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise error("the file is empty", file=path, line=1)
            self._index(node, ())
            self.data: Any = loader.construct_document(node)
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            raise error(
                f"not valid YAML: {problem.problem or problem.context}",
                file=path,
                line=mark.line + 1 if mark else None,
                hint="check the indentation and the quotes around this line",
            ) from None
        except yaml.YAMLError as problem:
            raise error(f"not valid YAML: {problem}", file=path, line=1) from None
        except RecursionError:
            raise error("nested too deep, or an alias holds itself", file=path, line=1) from None
        finally:
            loader.dispose()

    @classmethod
    def of(cls, data: Any, *, error: type[UserError] = SpecError) -> Document:
        """Hold values that come from no file, for example the arguments of a Serve application."""
        document = cls.__new__(cls)
        document.path, document.error, document.data, document._lines = None, error, data, {}
        return document

    def part(self, key: str) -> Document:
        """Return the value of a key as a document of its own, whose lines are those of the file."""
        part = Document.of(self.data[key], error=self.error)
        part.path = self.path
        part._lines = {path[1:]: line for path, line in self._lines.items() if path[:1] == (key,)}
        return part

    def _index(self, node: yaml.Node, path: FieldPath) -> None:
        if len(path) > MAX_DEPTH:
            raise self.error(
                "nested too deep, or an alias holds itself", file=self.path, line=self.line(path)
            )
        if len(self._lines) > MAX_NODES:
            raise self.error(
                f"more than {MAX_NODES:,} nodes once aliases are expanded", file=self.path
            )
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = (*path, str(key.value))
                if child in self._lines:
                    raise self.error(
                        "the key appears twice",
                        file=self.path,
                        line=key.start_mark.line + 1,
                        field=dotted(child),
                        hint=f"the first one is on line {self._lines[child]}: keep one",
                    )
                self._index(value, child)
                self._lines[child] = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._index(value, (*path, index))

    def line(self, path: FieldPath) -> int:
        """Return the 1-based line of a field, or of the nearest enclosing one."""
        while path not in self._lines and path:
            path = path[:-1]
        return self._lines.get(path, 1)

    def error_at(self, path: FieldPath | str, message: str, **details: Any) -> UserError:
        """Build (not raise) an error that points at a field."""
        parts = tuple(path.split(".")) if isinstance(path, str) else path
        return self.error(
            message, file=self.path, line=self.line(parts), field=dotted(parts), **details
        )

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """Give the file and the line to errors about a field that are found only later."""
        try:
            yield
        except UserError as error:
            parts = tuple(re.split(r"[.\[\]]+", error.field or ""))
            if error.context["file"] is None and parts[0] and parts[0] in self.data:
                error.context |= {"file": str(self.path), "line": self.line(parts)}
            raise

    def parse(self, model: type[ModelT]) -> ModelT:
        """Validate the document as `model`.

        Raises:
            UserError: the first field at fault, with its line and the nearest spelling.
        """
        if not isinstance(self.data, Mapping):
            raise self.error(
                "the file must hold a mapping (key: value lines)",
                file=self.path,
                line=1,
                got=type(self.data).__name__,
            )
        try:
            encoded = json.dumps(self.data, allow_nan=True)
        except TypeError as problem:
            raise self.error(f"a value has no plain type: {problem}", file=self.path) from None
        try:
            return model.model_validate_json(encoded)
        except ValidationError as problem:
            mistake = first_mistake(model, self.data, problem)
        raise self.error_at(
            mistake.path,
            mistake.message,
            got=mistake.got,
            allowed=mistake.allowed,
            hint=mistake.hint,
        )


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one field, in a user's words."""

    path: FieldPath
    message: str
    got: object = None
    allowed: str | None = None
    hint: str | None = None


def first_mistake(model: type[BaseModel], data: Any, problem: ValidationError) -> Mistake:
    """Pick and explain the first mistake that pydantic found.

    Args:
        model: what `data` was validated as.
        data: plain JSON types, as they were validated.
        problem: what pydantic raised.
    """
    errors = problem.errors(include_url=False)
    # The wrong kind of file is wrong in every key, so its kind comes first. A misspelled key causes
    # two errors: the unknown key says more than the missing one.
    errors.sort(key=lambda item: (item["loc"] != ("kind",), item["type"] != "extra_forbidden"))
    item = errors[0]
    path, known = _locate(model, data, item["loc"])
    # One value that is neither a number nor a word of a union causes an error for each.
    beside = [e for e in errors[1:] if _locate(model, data, e["loc"])[0] == path]
    num_more = len(errors) - 1 - len(beside)
    more = f" (and {num_more} more)" if num_more else ""
    if item["type"] == "extra_forbidden":
        name = str(path[-1])
        hint = did_you_mean(name, known) or "remove the key or use one of the allowed ones"
        return Mistake(path, f"unknown key {name!r}{more}", allowed=", ".join(known), hint=hint)
    if item["type"] == "missing":
        return Mistake(path, f"this key is required{more}", hint="add it")
    got = item["input"]
    if isinstance(got, str) and item["type"].endswith(("_type", "_parsing")):
        got = repr(got)  # "8" is text, and looks like a number without its quotes
    message, allowed = item["msg"].removeprefix("Value error, "), None
    if item["type"] in ("literal_error", "enum"):
        message, allowed = "not one of the allowed values", item["ctx"]["expected"]
    elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        message, allowed = "not one of the known kinds", item["ctx"].get("expected_tags")
        got = got.get("kind") if isinstance(got, dict) else got
    words = [e["ctx"]["expected"] for e in beside if e["type"] == "literal_error"]
    if words and allowed is None:
        message = f"{message}, or {' or '.join(words)}"
    choices = re.findall(r"'([^']*)'", allowed or "")
    near = did_you_mean(str(got), choices) if choices else None
    return Mistake(path, f"{message}{more}", got=got, allowed=allowed, hint=near)


def _locate(
    model: type[BaseModel], data: Any, location: tuple[int | str, ...]
) -> tuple[FieldPath, list[str]]:
    """Turn pydantic's location into a path in the file, and list the keys allowed at its end.

    Pydantic puts the tag of a union into the location; the file has no such key.
    """
    path: list[str | int] = []
    here: list[type[BaseModel]] = [model]
    known: list[str] = []
    is_key = False  # the next part is a key that the user chose: no model names it
    for part in location:
        if isinstance(part, str) and is_key:
            is_key = False
            data = data.get(part) if isinstance(data, Mapping) else None
        elif isinstance(part, str) and path and not here:
            continue  # the tag of a union of plain values: int or float
        elif isinstance(part, str):
            fields = {name: field for kind in here for name, field in kind.model_fields.items()}
            known = sorted(fields)
            # The class name tags a model that shares its union with plain values.
            tagged = [
                kind
                for kind in here
                if part == kind.__name__ or (len(here) > 1 and part in _tags(kind))
            ]
            if tagged:
                here = tagged
                continue
            here = _models_in(fields[part].annotation) if part in fields else []
            is_key = part in fields and get_origin(fields[part].annotation) is dict
            data = data.get(part) if isinstance(data, Mapping) else None
        elif isinstance(data, list):
            data = data[part] if part < len(data) else None
        else:
            continue  # one name stands where a list may stand
        path.append(part)
    return tuple(path), known


def _tags(kind: type[BaseModel]) -> set[str]:
    discriminator = kind.model_fields.get("kind")
    return {kind.__name__, *map(str, get_args(discriminator.annotation) if discriminator else ())}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _models_in(part)]


def dotted(path: FieldPath) -> str:
    """Show a field path: ("a", 0, "b") → "a[0].b"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def load_document(path: str | Path, *, error: type[UserError] = SpecError) -> Document:
    """Read a YAML file.

    Raises:
        UserError: of class `error`, when the file is missing, unreadable, too large or not YAML.
    """
    return Document(Path(path), _read_text(Path(path), error), error=error)


def load_documents(path: str | Path, *, error: type[UserError] = SpecError) -> list[Document]:
    """Read a YAML file of one or more documents, divided by lines of `---`.

    Lines count from the start of the file in every document; one without content is left out.

    Raises:
        UserError: as `load_document`.
    """
    text = _read_text(Path(path), error)
    # At the start of a line the mark begins a document wherever it stands, even in block text.
    starts = [match.start() for match in re.finditer(r"^---(?=\s|$)", text, re.MULTILINE)]
    bounds = itertools.pairwise([0, *starts, len(text)])
    parts = [(text.count("\n", 0, start), text[start:end]) for start, end in bounds]
    documents = [
        Document(Path(path), "\n" * line + part, error=error)
        for line, part in parts
        if re.search(r"^(?!---[ \t]*(?:#.*)?$)[ \t]*[^#\s]", part, re.MULTILINE)
    ]
    if not documents:
        raise error("the file is empty", file=path, line=1)
    return documents


def _read_text(path: Path, error: type[UserError]) -> str:
    try:
        with path.open("rb") as file:
            # A device or a pipe does not tell its size.
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise error(
                "the file is too large for a specification",
                file=path,
                got=f"more than {format_size(MAX_FILE_BYTES)}",
                allowed=f"at most {format_size(MAX_FILE_BYTES)}",
            )
        return content.decode("utf-8")
    except FileNotFoundError:
        near = None
        if path.parent.is_dir():
            near = did_you_mean(path.name, sorted(p.name for p in path.parent.iterdir()))
        raise error(
            "no such file",
            file=path,
            hint=near or "check the path; it is relative to the current folder",
        ) from None
    except UnicodeDecodeError as problem:
        raise error(
            f"not UTF-8 text: {problem.reason} at byte {problem.start}", file=path
        ) from None
    except OSError as problem:
        raise error(f"cannot read the file: {problem.strerror}", file=path) from None


def load_yaml(
    path: str | Path, model: type[ModelT], *, error: type[UserError] = SpecError
) -> ModelT:
    """Read a YAML file and validate it as `model`; see `Document.parse` for the errors."""
    return load_document(path, error=error).parse(model)
