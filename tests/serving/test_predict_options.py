"""What a request to `/v1/predict` may choose."""

from __future__ import annotations

import re

import pytest

from in_process import LIMITS, asker
from kovar.inference import Encoded

LONG = "good " * 20
PAIR = {"text": "a", "text_pair": "b"}


def predict(ask, **body):
    return ask("POST", "/v1/predict", json=body)


def test_the_probabilities_of_all_labels_may_be_left_out(ask):
    answer = predict(ask, inputs=["good"], scores=False).json()["predictions"][0]
    assert answer == {"label": "positive", "score": 0.75, "truncated": False}


def test_each_token_has_its_place_in_the_text_and_its_weight(ask):
    answer = predict(ask, inputs=["a good film"], attributions=True).json()["predictions"][0]
    assert answer["label"] == "positive"
    assert answer["attributions"] == [
        {"token": "a", "start": 0, "end": 1, "weight": 1.0},
        {"token": "good", "start": 2, "end": 6, "weight": 2.0},
        {"token": "film", "start": 7, "end": 11, "weight": 1.0},
    ]


def test_attributions_of_many_texts_are_refused_because_they_are_slow(runner):
    limits = LIMITS.model_copy(update={"max_attributed": 1})
    response = predict(asker(runner, limits), inputs=["a", "b"], attributions=True)
    assert (response.status_code, response.json()["code"]) == (422, "too_many_inputs")


@pytest.mark.parametrize(
    ("default", "wanted", "status"),
    [(True, None, 200), (True, False, 422), (False, None, 422), (False, True, 200)],
)
def test_a_text_with_too_many_tokens_is_cut_or_refused_as_the_request_or_the_spec_says(
    runner, default, wanted, status
):
    limits = LIMITS.model_copy(update={"truncate": default})
    response = predict(asker(runner, limits), inputs=["good", LONG], truncate=wanted)
    assert response.status_code == status
    if status == 200:
        flags = [answer["truncated"] for answer in response.json()["predictions"]]
        assert flags == [False, True]
    else:
        refusal = response.json()
        assert (refusal["code"], refusal["field"]) == ("too_many_tokens", "inputs[1]")


def test_a_refused_text_never_reaches_the_model(runner, runtime):
    predict(asker(runner), inputs=[LONG], truncate=False)
    assert runtime.batches == []


def test_an_input_may_be_a_pair_of_texts(runner, runtime):
    seen = []

    def tokenize(texts):
        seen.extend(texts)
        return [Encoded((1,)) for _ in texts]

    runtime.tokenize = tokenize
    assert predict(asker(runner), inputs=[PAIR, "c"]).status_code == 200
    assert seen == [("a", "b"), "c"]


MISTAKES = {
    "another key": ({"text": "a", "pair": "b"}, "inputs[0]"),
    "no text": ({"text_pair": "b"}, "inputs[0]"),
    "a number": ({"text": "a", "text_pair": 3}, "inputs[0].text_pair"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_pair_with_a_mistake_is_refused_at_its_field(ask, mistake):
    pair, field = MISTAKES[mistake]
    response = predict(ask, inputs=[pair])
    assert response.status_code == 422
    assert (response.json()["code"], response.json()["field"]) == ("wrong_type", field)


def test_both_texts_of_a_pair_are_checked(ask):
    response = predict(ask, inputs=[{"text": "a", "text_pair": " "}])
    assert response.json()["code"] == "text_empty"


def test_a_request_may_name_the_model(ask):
    assert predict(ask, inputs=["a"], model="movie-sentiment").status_code == 200
    assert predict(ask, inputs=["a"], model="other").json()["code"] == "model_not_found"


def test_the_answer_says_how_long_its_parts_took(ask):
    timing = predict(ask, inputs=["a"]).headers["server-timing"]
    number = r"\d+\.\d\d"
    assert re.fullmatch(f"queue;dur={number}, tokenize;dur={number}, compute;dur={number}", timing)


def test_a_packed_body_is_refused(ask):
    headers = {"content-encoding": "gzip"}
    response = ask("POST", "/v1/predict", content=b"\x1f\x8b", headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "encoding_not_supported")


@pytest.mark.parametrize(("seconds", "status"), [("0.02", 504), ("9", 200), ("0", 400), ("x", 400)])
def test_a_client_may_name_the_seconds_that_it_waits(ask, runtime, seconds, status):
    if status == 504:
        runtime.gate.clear()
    headers = {"x-request-timeout-seconds": seconds}
    response = ask("POST", "/v1/predict", json={"inputs": ["a"]}, headers=headers)
    assert response.status_code == status


def test_a_text_that_cannot_be_explained_is_named_by_its_place(ask):
    response = predict(ask, inputs=["a", LONG], attributions=True, truncate=False)
    refusal = response.json()
    assert (refusal["code"], refusal["field"]) == ("too_many_tokens", "inputs[1]")
