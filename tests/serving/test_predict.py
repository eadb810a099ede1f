"""`POST /v1/predict`: answers, refusals, and what never appears in either."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from in_process import LIMITS, SERVED, asker, send
from kovar.errors import KovarError
from kovar.inference import Answer, Prediction
from kovar.serving.api import create_api
from kovar.serving.served_model import served_model

SECRET = "xyzzy"


def test_every_text_gets_a_label_a_score_and_all_scores_in_order(ask):
    response = ask("POST", "/v1/predict", json={"inputs": ["good film", "bad film"]})
    assert response.status_code == 200
    body = response.json()
    assert (body["model"], body["version"], body["digest"]) == ("movie-sentiment", 3, "ab" * 32)
    assert [item["label"] for item in body["predictions"]] == ["positive", "negative"]
    assert body["predictions"][0] == {
        "label": "positive",
        "score": 0.75,
        "scores": {"negative": 0.25, "positive": 0.75},
        "truncated": False,
    }


def test_a_text_longer_than_the_model_reads_is_flagged(ask):
    response = ask("POST", "/v1/predict", json={"inputs": ["a " * 20]})
    assert response.json()["predictions"][0]["truncated"] is True


REFUSALS = {
    "no body": (b"", 400, "invalid_json", None),
    "not JSON": (b"{inputs: xyzzy}", 400, "invalid_json", None),
    "not UTF-8": (b'{"inputs": ["\xff"]}', 400, "invalid_json", None),
    "half a character": (b'{"inputs": ["\\ud800 xyzzy"]}', 400, "invalid_json", None),
    "NaN": (b'{"inputs": [NaN]}', 400, "invalid_json", None),
    "nested too deeply": (b"[" * 900 + b"]" * 900, 400, "invalid_json", None),
    "a list": (b'["xyzzy"]', 422, "wrong_type", None),
    "no inputs": (b"{}", 422, "missing_field", "inputs"),
    "unknown field": (b'{"inputs": ["a"], "top_k": 3}', 422, "unknown_field", "top_k"),
    "unknown odd field": (b'{"inputs": ["a"], "xyzzy !": 3}', 422, "unknown_field", None),
    "a bare text": (b'{"inputs": "xyzzy"}', 422, "wrong_type", "inputs"),
    "a number": (b'{"inputs": ["a", 7]}', 422, "wrong_type", "inputs[1]"),
    "null": (b'{"inputs": [null]}', 422, "wrong_type", "inputs[0]"),
    "no texts": (b'{"inputs": []}', 422, "inputs_empty", "inputs"),
    "an empty text": (b'{"inputs": ["a", ""]}', 422, "text_empty", "inputs[1]"),
    "a blank text": (b'{"inputs": [" \\n"]}', 422, "text_empty", "inputs[0]"),
    "too many texts": (b'{"inputs": ["a","b","c","d","e"]}', 422, "too_many_inputs", "inputs"),
    "a long text": (b'{"inputs": ["' + b"xyzzy" * 30 + b'"]}', 422, "text_too_long", "inputs[0]"),
    "a large body": (b'{"inputs": ["' + b"xyzzy" * 500 + b'"]}', 413, "body_too_large", None),
}


@pytest.mark.parametrize("mistake", REFUSALS)
def test_a_mistake_is_refused_with_its_place_and_without_the_text(ask, caplog, mistake):
    body, status, code, field = REFUSALS[mistake]
    response = ask("POST", "/v1/predict", content=body)
    refusal = response.json()
    assert (response.status_code, refusal["code"], refusal["field"]) == (status, code, field)
    assert set(refusal) == {"error", "code", "field"}
    assert SECRET not in response.text + caplog.text
    assert_named(response)


def assert_named(response) -> None:
    assert response.headers["x-kovar-model"] == "movie-sentiment"
    assert response.headers["x-kovar-version"] == "3"
    assert response.headers["x-kovar-digest"] == "ab" * 32
    assert response.headers["x-kovar-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/predict", 405), ("GET", "/nowhere", 404), ("GET", "/v2", 200)],
)
def test_every_response_names_the_version_and_the_request(ask, method, path, status):
    response = ask(method, path)
    assert response.status_code == status
    assert_named(response)


def test_a_text_of_one_megabyte_is_refused_by_its_length_under_default_limits(runner):
    response = asker(runner, type(LIMITS)())("POST", "/v1/predict", json={"inputs": ["x" * 10**6]})
    assert (response.status_code, response.json()["code"]) == (422, "text_too_long")


def test_a_body_without_a_declared_length_is_cut_at_the_limit(ask):
    async def chunks():
        for _ in range(100):
            yield b" " * 100

    response = ask("POST", "/v1/predict", content=chunks())
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_body_that_does_not_arrive_in_time_is_refused(runner):
    limits = LIMITS.model_copy(update={"body_timeout_s": 0.05})

    async def chunks():
        yield b"{"
        await asyncio.sleep(5)

    response = asker(runner, limits)("POST", "/v1/predict", content=chunks())
    assert (response.status_code, response.json()["code"]) == (408, "body_timeout")


@pytest.mark.parametrize("header", ["x-kovar-request-id", "x-request-id"])
def test_the_request_id_of_the_caller_comes_back(ask, header):
    response = ask("GET", "/v2", headers={header: "order-17"})
    assert response.headers["x-kovar-request-id"] == "order-17"


def test_a_request_id_that_could_forge_a_log_line_is_replaced(ask):
    response = ask("GET", "/v2", headers={"x-request-id": 'a" b'})
    assert response.headers["x-kovar-request-id"].isalnum()


def test_a_full_queue_answers_429_with_retry_after(runner, runtime):
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    body = {"inputs": ["a", "b", "c", "d"]}

    async def talk():
        runtime.gate.clear()
        waiting = [asyncio.ensure_future(send(app, "POST", "/v1/predict", json=body))]
        await asyncio.to_thread(runtime.busy.wait, 5)  # the first batch has left the queue
        waiting += [
            asyncio.ensure_future(send(app, "POST", "/v1/predict", json=body)) for _ in "23"
        ]
        async with asyncio.timeout(5):
            while runner.num_queued < 8:
                await asyncio.sleep(0.001)
        refused = await send(app, "POST", "/v1/predict", json=body)
        runtime.gate.set()
        return refused, await asyncio.gather(*waiting)

    refused, answered = asyncio.run(talk())
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert [response.status_code for response in answered] == [200, 200, 200]


def test_a_deadline_that_passes_answers_504(runner, runtime):
    runtime.gate.clear()
    limits = LIMITS.model_copy(update={"request_timeout_s": 0.05})
    response = asker(runner, limits)("POST", "/v1/predict", json={"inputs": ["slow"]})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


def test_a_text_that_the_model_fails_on_answers_500_without_the_text(ask, caplog):
    with caplog.at_level(logging.DEBUG):
        response = ask("POST", "/v1/predict", json={"inputs": ["poison xyzzy"]})
    assert (response.status_code, response.json()["code"]) == (500, "model_failed")
    assert not {"poison", SECRET} & set((response.text + caplog.text).split())


class Broken:
    """A predictor with a defect whose message quotes the text."""

    async def ask(self, inputs: Sequence[str], **_: Any) -> Answer[Prediction]:
        raise LookupError(f"a defect that quotes {inputs}")

    def check(self) -> None:
        raise KovarError("the runtime's thread is dead")


def test_a_defect_answers_500_and_logs_its_place_alone(caplog):
    response = asker(Broken())("POST", "/v1/predict", json={"inputs": [SECRET]})
    assert response.status_code == 500
    assert response.json() == {"error": "the server failed", "code": "internal", "field": None}
    assert_named(response)
    assert "LookupError at" in caplog.text
    assert SECRET not in caplog.text


def test_a_replica_that_cannot_answer_is_alive_and_not_ready():
    ask = asker(Broken())
    assert ask("GET", "/v2/health/live").status_code == 200
    response = ask("GET", "/v2/health/ready")
    assert (response.status_code, response.json()) == (503, {"ready": False})


def test_the_openapi_document_describes_bodies_answers_and_refusals(ask):
    document = ask("GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"PredictRequest", "PredictResponse", "InferRequest", "RequestTensor"} <= set(schemas)
    references = {
        part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]
    }
    assert references <= set(schemas)
