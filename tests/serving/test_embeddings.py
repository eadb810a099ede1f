"""`POST /v1/embeddings` in OpenAI's shape."""

from __future__ import annotations

import base64
import struct

import pytest

from in_process import LIMITS, asker


def embed(ask, **body):
    return ask("POST", "/v1/embeddings", json=body)


def test_a_text_gets_its_embedding(ask):
    response = embed(ask, model="movie-sentiment", input="good film")
    assert response.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 0.0]}],
        "model": "movie-sentiment",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }


@pytest.mark.parametrize("given", [["good", "bad"], [[1, 8], [0, 9]]])
def test_several_texts_or_their_token_ids_get_theirs_in_order(ask, given):
    data = embed(ask, input=given).json()["data"]
    assert [item["embedding"] for item in data] == [[1.0, 0.0], [0.0, 1.0]]
    assert [item["index"] for item in data] == [0, 1]


def test_the_token_ids_of_one_text_are_one_input(ask):
    answer = embed(ask, input=[1, 8, 9]).json()
    assert (len(answer["data"]), answer["usage"]["prompt_tokens"]) == (1, 3)


def test_numbers_may_come_as_base64(ask):
    packed = embed(ask, input="bad", encoding_format="base64").json()["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.0, 1.0)


def test_a_text_that_was_cut_is_flagged_or_refused_as_the_request_says(ask):
    texts = ["good", "good " * 17]
    data = embed(ask, input=texts).json()["data"]
    assert [item.get("truncated") for item in data] == [None, True]
    response = embed(ask, input=texts, truncate=False)
    assert (response.status_code, response.json()["code"]) == (422, "too_many_tokens")


def test_truncation_follows_the_spec_where_the_request_says_nothing(runner):
    ask = asker(runner, LIMITS.model_copy(update={"truncate": False}))
    assert embed(ask, input="good " * 17).json()["code"] == "too_many_tokens"
    assert embed(ask, input="good " * 17, truncate=True).status_code == 200


REFUSALS = {
    "no input": ({}, "missing_field", "input"),
    "a number": ({"input": 3}, "wrong_type", "input"),
    "no texts": ({"input": []}, "inputs_empty", "input"),
    "texts and numbers": ({"input": ["a", 3]}, "wrong_type", "input[0]"),
    "an unknown token": ({"input": [100]}, "unknown_token", "input[0]"),
    "a token below 0": ({"input": [[1, -1]]}, "unknown_token", "input[0]"),
    "too many tokens": ({"input": [1] * 17}, "too_many_tokens", "input[0]"),
    "a long text": ({"input": "x" * 101}, "text_too_long", "input[0]"),
    "fewer dimensions": ({"input": "a", "dimensions": 1}, "wrong_dimensions", "dimensions"),
    "another format": (
        {"input": "a", "encoding_format": "hex"},
        "wrong_type",
        "encoding_format",
    ),
}


@pytest.mark.parametrize("mistake", REFUSALS)
def test_a_mistake_is_refused_with_its_place(ask, mistake):
    body, code, field = REFUSALS[mistake]
    response = embed(ask, **body)
    refusal = response.json()
    assert (response.status_code, refusal["code"], refusal["field"]) == (422, code, field)


def test_the_models_are_listed(ask):
    models = ask("GET", "/v1/models").json()["data"]
    assert [(model["id"], model["digest"]) for model in models] == [("movie-sentiment", "ab" * 32)]
