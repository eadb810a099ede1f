"""What a refusal names, whichever way the request came, and what it never repeats."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from in_process import LIMITS, SERVED, asker, send
from kovar.serving.api import create_api
from kovar.serving.served_model import served_model

INFER = "/v2/models/movie-sentiment/infer"
LONG = "good " * 17


def tensor(*texts, **changes):
    shape = [len(texts)]
    return {"name": "text", "shape": shape, "datatype": "BYTES", "data": list(texts)} | changes


def infer(ask, *inputs, **fields):
    return ask("POST", INFER, json={"inputs": list(inputs)} | fields)


def told(response) -> tuple[int, str, str | None]:
    return response.status_code, response.json()["code"], response.json()["field"]


BAD = {
    "too many tokens": (LONG, False, (422, "too_many_tokens")),
    "a text that the model fails on": ("poison", True, (500, "model_failed")),
    "a text without tokens": ("garbled", True, (422, "text_not_tokenizable")),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_text_at_fault_is_named_in_the_words_of_its_protocol(ask, mistake):
    text, truncate, expected = BAD[mistake]
    texts, parameters = ["good", text], {"truncate": truncate}
    response = ask("POST", "/v1/predict", json={"inputs": texts, "truncate": truncate})
    assert told(response) == (*expected, "inputs[1]")
    response = ask("POST", "/v1/embeddings", json={"input": texts, "truncate": truncate})
    assert told(response) == (*expected, "input[1]")
    for outputs in ([{"name": "label"}], [{"name": "embedding"}]):
        response = infer(ask, tensor(*texts), outputs=outputs, parameters=parameters)
        assert told(response) == (*expected, "inputs[0].data[1]")
    assert text not in response.text


def test_a_pair_at_fault_is_named_by_its_first_text(ask):
    pair = (tensor("a", name="text_pair"), tensor("b"))  # the scripted runtime reads no pairs
    assert told(infer(ask, *pair)) == (422, "text_not_tokenizable", "inputs[1].data[0]")


def test_token_ids_at_fault_are_named_by_their_row(ask, runtime):
    poison = runtime.tokenize(["poison"])[0].ids[0]
    ids = {"name": "input_ids", "shape": [2, 1], "datatype": "INT64", "data": [[1], [poison]]}
    assert told(infer(ask, ids)) == (500, "model_failed", "inputs[0].data[1]")
    response = ask("POST", "/v1/embeddings", json={"input": [[1], [poison]]})
    assert told(response) == (500, "model_failed", "input[1]")


def test_a_refusal_says_what_to_do_next_where_that_is_known(ask):
    response = ask("POST", "/v1/predict", json={"inputs": [LONG], "truncate": False})
    assert response.json()["hint"] == "send less of it, or allow truncation"
    assert "hint" not in ask("POST", "/v1/predict", json={"inputs": []}).json()
    schemas = ask("GET", "/openapi.json").json()["components"]["schemas"]
    assert "hint" in schemas["ErrorResponse"]["properties"]


@pytest.mark.parametrize("value", ["1e400", '{"a": [1e400]}'])
def test_a_number_beyond_all_floats_is_named_by_its_parameter(ask, value):
    body = json.dumps({"inputs": [tensor("a", parameters={"x": "VALUE"})]})
    response = ask("POST", INFER, content=body.replace('"VALUE"', value))
    assert told(response) == (422, "wrong_type", "inputs[0].parameters.x")
    assert response.json()["error"] == "wrong type: expected a finite number"


def test_a_parameter_whose_name_is_a_text_is_not_repeated(ask):
    body = json.dumps({"inputs": [tensor("a")], "parameters": {"my own text": "VALUE"}})
    response = ask("POST", INFER, content=body.replace('"VALUE"', "1e400"))
    assert told(response) == (422, "wrong_type", "parameters")
    assert "own text" not in response.text


@pytest.mark.parametrize("size", [1 << 64, 10**4000], ids=["65 bits", "4,001 digits"])
def test_a_size_above_64_bits_is_refused_and_not_repeated(runner, size):
    ask = asker(runner, LIMITS.model_copy(update={"max_body_bytes": 10_000}))
    response = infer(ask, tensor("a", shape=[size]))
    assert told(response) == (400, "invalid_tensor", "inputs[0].shape")
    response = infer(ask, tensor("a", shape=[(1 << 64) - 1]))
    assert told(response) == (422, "too_many_inputs", "inputs[0].data")
    assert "1844" not in response.text


@pytest.mark.parametrize("value", ["yes", 1])
def test_all_outputs_as_bytes_are_asked_for_by_true_or_false(ask, value):
    response = infer(ask, tensor("a"), parameters={"binary_data_output": value})
    assert told(response) == (422, "wrong_type", "parameters.binary_data_output")


def test_a_body_that_misses_the_client_s_own_deadline_is_not_blamed_on_the_limit(ask):
    async def chunks():
        yield b"{"
        await asyncio.sleep(5)

    headers = {"x-request-timeout-seconds": "0.05"}
    response = ask("POST", "/v1/predict", content=chunks(), headers=headers)
    assert told(response) == (408, "body_timeout", None)
    assert response.json()["error"].endswith("within the time that the request has")


def test_a_refusal_names_the_version_that_was_asked(runner, runtime):
    older = dataclasses.replace(SERVED, version=2, digest="cd" * 32)
    models = [served_model(served, runner, runtime) for served in (SERVED, older)]
    app = create_api(models, limits=LIMITS)

    def named(version):
        path = f"/v2/models/movie-sentiment/versions/{version}/infer"
        response = asyncio.run(send(app, "POST", path, json={"inputs": [tensor(" ")]}))
        return response.status_code, response.headers["x-kovar-version"]

    assert [named(version) for version in (2, 3, 1)] == [(422, "2"), (422, "3"), (404, "3")]
