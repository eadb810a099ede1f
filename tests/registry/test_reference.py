"""Names and references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.errors import UserError
from kovar.registry.reference import Reference, check_name, parse_reference


@pytest.mark.parametrize("name", ["champion", "movie-sentiment", "v1.2_b", "3d", "facade"])
def test_a_plain_name_is_accepted(name):
    assert check_name(name, field="alias") == name


@pytest.mark.parametrize("name", ["", "Champion", "a b", "-a", "a.", "..", "a/b", "é", "x" * 129])
def test_a_name_with_other_characters_is_refused(name):
    with pytest.raises(UserError, match="lowercase letters"):
        check_name(name, field="model")


@pytest.mark.parametrize("name", ["7", "0012", "12345678", "deadbeef", "0" * 64])
def test_a_name_that_looks_like_a_number_or_a_digest_is_refused(name):
    with pytest.raises(UserError, match="taken for"):
        check_name(name, field="alias")


def test_the_refusal_suggests_a_valid_name():
    with pytest.raises(UserError, match='for example "movie-sentiment"'):
        check_name("Movie Sentiment", field="model")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (3, Reference(number=3)),
        ("3", Reference(number=3)),
        ("9f2c41d0", Reference(digest="9f2c41d0")),
        ("champion", Reference(alias="champion")),
        ("9f2c41d", Reference(alias="9f2c41d")),
    ],
)
def test_numbers_digests_and_aliases_are_told_apart(text, reference):
    assert parse_reference(text) == reference


@given(st.text("abcdef0123456789.-_", max_size=70))
def test_a_valid_name_is_always_read_as_a_name(name):
    try:
        check_name(name, field="alias")
    except UserError:
        return
    assert parse_reference(name) == Reference(alias=name)
