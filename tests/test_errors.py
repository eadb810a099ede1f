"""The exception tree: picklable, documented, with exit codes."""

import pickle

import pytest

import kovar.errors as errors
from kovar.errors import KovarError, MissingExtraError, RequestError, SpecError, UserError

TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, KovarError)
]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_its_fields(kind):
    before = kind("it broke", hint="mend it")
    after = pickle.loads(pickle.dumps(before))  # noqa: S301
    assert type(after) is kind
    assert str(after) == str(before)
    assert after.context == before.context


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_stands_in_the_drawn_tree(kind):
    assert kind.__name__ in (errors.__doc__ or "")


def test_a_users_mistake_exits_with_2_and_a_failure_with_1():
    assert {kind.exit_code for kind in TREE if issubclass(kind, UserError)} == {2}
    assert {kind.exit_code for kind in TREE if not issubclass(kind, UserError)} == {1}


def test_a_user_error_says_where_what_was_got_and_what_to_do():
    error = SpecError(
        "wrong", file="a.yaml", line=3, field="b.c", got="x" * 500, allowed="y", hint="do z"
    )
    where, got, allowed, hint = str(error).splitlines()
    assert where == "a.yaml:3: b.c: wrong"
    assert got.endswith("…")
    assert len(got) < 140
    assert (allowed, hint) == ("  allowed: y", "  → do z")


def test_a_missing_extra_names_the_command_that_installs_it():
    error = MissingExtraError.of("mlflow", needed_for="export to MLflow")
    assert 'pip install "kovar-platform[mlflow]"' in str(error)


def test_a_request_error_carries_its_http_status():
    error = pickle.loads(pickle.dumps(RequestError("too long", status=413, code="body_too_large")))  # noqa: S301
    assert (error.status, error.code) == (413, "body_too_large")
