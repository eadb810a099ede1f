"""Token ids, outputs on request, and bytes instead of JSON."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.errors import RequestError
from kovar.serving.protocol.tensors import Tensor, flat, from_raw, to_raw

INFER = "/v2/models/movie-sentiment/infer"
GOOD, BAD = 1, 0


def ids(rows, **changes):
    shape = [len(rows), len(rows[0])]
    return {"name": "input_ids", "shape": shape, "datatype": "INT64", "data": rows} | changes


def mask(rows):
    return ids(rows, name="attention_mask")


def infer(ask, *inputs, **fields):
    return ask("POST", INFER, json={"inputs": list(inputs)} | fields)


def labels(response):
    return response.json()["outputs"][0]["data"]


def test_token_ids_are_read_up_to_the_end_of_their_mask(ask, runtime):
    response = infer(ask, ids([[GOOD, 8, 9], [BAD, GOOD, GOOD]]), mask([[1, 1, 1], [1, 0, 0]]))
    assert labels(response) == ["positive", "negative"]
    assert sorted(length for batch in runtime.batches for length in batch) == [1, 3]


def test_token_ids_may_be_int32(ask):
    assert labels(infer(ask, ids([[GOOD]], datatype="INT32"))) == ["positive"]


def test_an_output_is_sent_once(ask):
    response = infer(ask, ids([[GOOD]]), outputs=[{"name": "embedding"}] * 2)
    assert (response.status_code, response.json()["field"]) == (400, "outputs")


@pytest.mark.parametrize("timeout", [-1, 1.5, 10**400])
def test_a_timeout_that_is_no_time_is_refused(ask, timeout):
    response = infer(ask, ids([[GOOD]]), parameters={"timeout": timeout})
    assert (response.status_code, response.json()["field"]) == (422, "parameters.timeout")


def test_a_header_length_of_many_digits_is_refused(ask):
    headers = {"inference-header-content-length": "1" * 5_000}
    response = ask("POST", INFER, json={"inputs": [ids([[GOOD]])]}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_header")


REFUSALS = {
    "an id above the vocabulary": ([ids([[100]])], "inputs[0].data"),
    "an id below 0": ([ids([[-1]])], "inputs[0].data"),
    "a number with a fraction": ([ids([[1.5]])], "inputs[0].data"),
    "a flag": ([ids([[True]])], "inputs[0].data"),
    "a row": ([ids([[1]], shape=[1])], "inputs[0].shape"),
    "no tokens": ([ids([[]], data=[])], "inputs[0].shape[1]"),
    "too many tokens": ([ids([[1] * 17])], "inputs[0].shape[1]"),
    "a mask of another shape": ([ids([[1, 1]]), mask([[1]])], "inputs[1].shape"),
    "a mask with a hole": ([ids([[1, 1, 1]]), mask([[1, 0, 1]])], "inputs[1].data"),
    "an empty mask": ([ids([[1, 1]]), mask([[0, 0]])], "inputs[1].data"),
    "a mask of numbers": ([ids([[1, 1]]), mask([[2, 0]])], "inputs[1].data"),
    "types that go back": (
        [ids([[1, 1, 1]]), ids([[0, 1, 0]], name="token_type_ids")],
        "inputs[1].data",
    ),
    "a mask alone": ([mask([[1]])], "inputs[0].name"),
    "ids and texts": (
        [ids([[1]]), {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
        "inputs[1].name",
    ),
    "the same tensor twice": ([ids([[1]]), ids([[1]])], "inputs"),
}


@pytest.mark.parametrize("mistake", REFUSALS)
def test_wrong_token_ids_are_refused_with_their_place(ask, mistake):
    tensors, field = REFUSALS[mistake]
    response = infer(ask, *tensors)
    assert (response.status_code, response.json()["field"]) == (400, field)


def test_embeddings_and_flags_are_sent_when_they_are_asked_for(ask):
    wanted = [{"name": "embedding"}, {"name": "truncated"}]
    outputs = infer(ask, ids([[GOOD], [BAD]]), outputs=wanted).json()["outputs"]
    assert outputs[0] == {
        "name": "embedding",
        "shape": [2, 2],
        "datatype": "FP32",
        "data": [1.0, 0.0, 0.0, 1.0],
    }
    assert (outputs[1]["datatype"], outputs[1]["data"]) == ("BOOL", [False, False])


def text(*texts):
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}


def test_a_text_that_was_cut_is_flagged_in_the_parameters(ask):
    assert infer(ask, text("a")).json()["parameters"] == {"digest": "ab" * 32}
    assert infer(ask, text("a " * 20)).json()["parameters"]["truncated"] is True
    response = infer(ask, text("a " * 20), parameters={"truncate": False})
    assert response.json()["code"] == "too_many_tokens"


def test_a_text_that_was_cut_is_flagged_where_only_its_embedding_is_sent(ask):
    outputs = [{"name": "embedding"}]
    assert "truncated" not in infer(ask, text("a"), outputs=outputs).json()["parameters"]
    response = infer(ask, text("a", "a " * 20), outputs=outputs)
    assert response.json()["parameters"]["truncated"] is True


def test_a_body_without_json_is_one_text_and_is_answered_in_bytes(ask):
    headers = {"inference-header-content-length": "0"}
    response = ask("POST", INFER, content="good, täuschend".encode(), headers=headers)
    size = int(response.headers["inference-header-content-length"])
    label, _ = json.loads(response.content[:size])["outputs"]
    assert label["shape"] == [1]
    assert from_raw("BYTES", response.content[size:][:12], "", num_elements=1) == ["negative"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "text_empty"), (b"\xff", "invalid_tensor"), (b"x" * 101, "text_too_long")],
)
def test_a_wrong_text_without_json_is_refused_as_any(ask, body, code):
    headers = {"inference-header-content-length": "0"}
    response = ask("POST", INFER, content=body, headers=headers)
    assert (response.json()["code"], response.json()["field"]) == (code, "inputs[0].data[0]")


def test_a_client_that_waits_for_a_moment_gets_no_late_answer(ask, runtime):
    runtime.gate.clear()
    response = infer(ask, text("a"), parameters={"timeout": 20_000})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


BINARY = {
    "a cut-off text": (struct.pack("<I", 9) + b"good", None, "inputs[0]"),
    "a cut-off length": (b"\x01\x00", None, "inputs[0]"),
    "no UTF-8": (struct.pack("<I", 1) + b"\xff", None, "inputs[0].data[0]"),
    "bytes that no tensor has": (b"", 0, "inputs[0].data"),
    "more than there is": (b"abc", 99, "inputs[0].parameters.binary_data_size"),
    "fewer than there are": (struct.pack("<I", 4) + b"good", 4, "inputs[0]"),
}


@pytest.mark.parametrize("mistake", BINARY)
def test_wrong_bytes_are_refused_with_their_place(ask, mistake):
    raw, size, field = BINARY[mistake]
    tensor = text() | {"shape": [1], "parameters": {"binary_data_size": len(raw)}}
    del tensor["data"]
    if size is not None:
        tensor["parameters"] = {"binary_data_size": size}
    header = json.dumps({"inputs": [tensor]}).encode()
    response = ask(
        "POST",
        INFER,
        content=header + raw,
        headers={"inference-header-content-length": str(len(header))},
    )
    assert (response.status_code, response.json()["field"]) == (400, field)


@pytest.mark.parametrize("length", ["-1", "x", "99999"])
def test_a_length_outside_of_the_body_is_refused(ask, length):
    headers = {"inference-header-content-length": length}
    response = ask("POST", INFER, content=b"{}", headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_header")


@given(st.lists(st.text()))
def test_texts_survive_their_bytes(texts):
    raw = to_raw(Tensor("text", "BYTES", (len(texts),), texts))
    assert from_raw("BYTES", raw, "inputs[0]", num_elements=len(texts)) == texts


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_survive_their_bytes(numbers):
    raw = to_raw(Tensor("input_ids", "INT64", (len(numbers),), numbers))
    assert from_raw("INT64", raw, "inputs[0]", num_elements=len(numbers)) == numbers


@given(st.sampled_from(["BYTES", "INT64", "INT32", "FP32", "BOOL", "FP8"]), st.binary())
def test_any_bytes_are_read_or_refused(datatype, raw):
    try:
        elements = from_raw(datatype, raw, "inputs[0]", num_elements=100)
    except RequestError:
        return
    assert isinstance(elements, list)


@given(st.lists(st.lists(st.integers(), min_size=2, max_size=2), min_size=1))
def test_nested_rows_are_laid_end_to_end(rows):
    assert flat(rows, [len(rows), 2]) == [element for row in rows for element in row]
    assert flat(rows, [len(rows), 3]) == rows
