"""YAML errors name file, line, field, what was got, what is allowed and the nearest spelling."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from kovar.config import (
    Config,
    Document,
    SizeBytes,
    canonical_json,
    load_document,
    load_documents,
    load_yaml,
)
from kovar.errors import SpecError


class Circle(Config):
    kind: Literal["circle"]
    radius: float


class Box(Config):
    kind: Literal["box"]
    weight: SizeBytes | None = None


class Drawing(Config):
    scale: float
    name: str = "x"
    mode: Literal["fast", "exact"] = "fast"
    shapes: tuple[Annotated[Circle | Box, Field(discriminator="kind")], ...] = ()


def parse(text: str) -> Drawing:
    return Document(Path("drawing.yaml"), text).parse(Drawing)


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text)
    return str(caught.value)


def test_exponents_without_a_dot_are_numbers_and_no_is_text():
    drawing = parse("scale: 5e-5\nname: no\nshapes:\n- {kind: box, weight: 4GiB}\n")
    assert (drawing.scale, drawing.name) == (5e-5, "no")
    assert drawing.shapes[0].weight == 4 << 30


def test_an_unknown_key_is_reported_with_its_line_and_the_nearest_spelling():
    message = refusal("scale: 1\nshapes:\n- kind: circle\n  raduis: 2\n")
    assert message.startswith("drawing.yaml:4: shapes[0].raduis: unknown key 'raduis'")
    assert 'did you mean "radius"?' in message
    assert "allowed: kind, radius" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scale: wide", "drawing.yaml:1: scale: Input should be a valid number\n  got: 'wide'"),
        ("scale: true", "drawing.yaml:1: scale: Input should be a valid number"),
        ("scale: .nan", "finite number"),
        ("name: a", "drawing.yaml:1: scale: this key is required"),
        ("scale: 1\nmode: exat", 'did you mean "exact"?'),
        ("scale: 1\nshapes:\n- kind: cirle", 'did you mean "circle"?'),
        ("scale: 1\nshapes:\n- {kind: box, weight: 4 gigs}", 'text such as "512MiB"'),
        ("scale: 1\nname: [", "not valid YAML"),
        ("scale: 1\n\n\nscale: 2", "drawing.yaml:4: scale: the key appears twice"),
        ("- scale", "must hold a mapping"),
        ("", "the file is empty"),
        ("scale: &a [*a]", "an alias holds itself"),
        ("scale: " + "[" * 3000, "nested too deep"),
        ("scale: 1\nname: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_each_mistake_has_its_message(text, expected):
    assert expected in refusal(text)


def test_exponential_aliases_are_refused_instead_of_expanded():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "nodes once aliases are expanded" in refusal("\n".join(lines))


def test_a_missing_file_names_the_nearest_file(tmp_path):
    (tmp_path / "movie.yaml").write_text("scale: 1")
    with pytest.raises(SpecError, match=r'no such file\n.*did you mean "movie.yaml"'):
        load_yaml(tmp_path / "movei.yaml", Drawing)


def test_a_file_that_is_not_text_is_a_clear_error(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"scale: \xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        load_yaml(tmp_path / "x.yaml", Drawing)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse("scale: 1").scale = 2  # type: ignore[misc]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)


def test_documents_of_one_file_keep_the_lines_of_the_file(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text(
        "# notes\n---\na: 1\n---\n# nothing\n--- # b\nb:\n  - |\n    text ---\n    ---\n"
    )
    first, second = load_documents(path)
    assert (first.data, first.line(("a",))) == ({"a": 1}, 3)
    assert (second.data, second.line(("b",))) == ({"b": ["text ---\n---\n"]}, 7)


def test_a_file_of_one_document_is_one_document(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("a: 1\n")
    assert [document.data for document in load_documents(path)] == [{"a": 1}]


@pytest.mark.parametrize("text", ["", "# notes\n", "---\n", "\n---\n# notes\n---\n"])
def test_a_file_without_content_is_empty(tmp_path, text):
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match="the file is empty"):
        load_documents(path)


def test_a_mistake_in_a_later_document_is_shown_at_its_line(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text("a: 1\n---\nb: [1\n")
    with pytest.raises(SpecError, match=r"many\.yaml:4: not valid YAML"):
        load_documents(path)


def test_a_device_is_no_specification():
    with pytest.raises(SpecError, match="too large for a specification"):
        load_document("/dev/zero")


def test_a_value_that_is_neither_number_nor_word_is_told_both():
    from kovar.training import TrainingSettings

    with pytest.raises(SpecError, match="a valid integer, or 'auto'") as caught:
        Document.of({"epochs": 1, "micro_batch_tokens": "all"}).parse(TrainingSettings)
    assert caught.value.field == "micro_batch_tokens"
    assert "more" not in caught.value.message
