"""Keys, log, metrics and capture around the whole HTTP application, in this process."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace

import pytest

from in_process import LIMITS, SERVED, asker, send
from kovar.inference.load import Load
from kovar.inference.runner import Queued
from kovar.serving.access.key import KeyLimits, issue
from kovar.serving.access.key_file import add_key
from kovar.serving.api import create_api
from kovar.serving.guards import Guards
from kovar.serving.observe import ObserveSettings
from kovar.serving.served_model import served_model
from kovar.serving.spec import ServingSpec

BODY = {"inputs": ["good xyzzy film, write to jane@example.org"]}


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def guarded(tmp_path, runner, keys):
    """Return a function that starts guards around the application."""
    started = []

    def start(*, access=None, **observe):
        spec = ServingSpec.model_validate(
            {"model": "m", "access": access or {}, "observe": observe}, strict=False
        )
        guards = Guards(spec, (SERVED,), name="r1", folder=tmp_path / "logs", sink=None)
        started.append(guards)
        return guards, asker(runner, middlewares=guards.middlewares)

    yield start
    for guards in started:
        guards.close()


def locked(guarded, keys, *scopes, **options):
    key, token = issue("caller", scopes or ("predict",), **options)
    add_key(keys, key)
    _, ask = guarded(access={"keys": str(keys)})
    return key, {"authorization": f"Bearer {token}"}, ask


def lines(tmp_path, kind="request"):
    text = (tmp_path / "logs/access-r1.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [record for record in found if record["kind"] == kind]


def test_with_keys_nothing_answers_without_one_but_health(guarded, keys):
    _, _, ask = locked(guarded, keys)
    for method, path in [
        ("POST", "/v1/predict"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v2/models/movie-sentiment/infer"),
        ("GET", "/v2"),
        ("GET", "/v2/models/movie-sentiment"),
        ("GET", "/v1/models"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/predict"),
    ]:
        response = ask(method, path, **({"json": BODY} if method == "POST" else {}))
        assert (response.status_code, response.json()["code"]) == (401, "key_missing"), path
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-kovar-digest"] == SERVED.digest
    assert ask("GET", "/v2/health/live").status_code == 200
    assert ask("GET", "/v2/health/ready").status_code == 200


def test_a_key_with_the_scope_is_answered(guarded, keys):
    _, headers, ask = locked(guarded, keys)
    assert ask("POST", "/v1/predict", json=BODY, headers=headers).status_code == 200
    refused = ask("GET", "/v2", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


def test_a_key_above_its_rate_gets_retry_after_in_whole_seconds(guarded, keys):
    limits = KeyLimits(requests_per_s=0.25, burst=1)
    _, headers, ask = locked(guarded, keys, limits=limits)
    assert ask("POST", "/v1/predict", json=BODY, headers=headers).status_code == 200
    refused = ask("POST", "/v1/predict", json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "key_rate")
    assert refused.headers["retry-after"] == "4"


def test_a_refused_caller_never_has_the_body_read(guarded, keys):
    _, _, ask = locked(guarded, keys)

    async def chunks():
        yield b"{"
        await asyncio.sleep(60)

    assert ask("POST", "/v1/predict", content=chunks()).status_code == 401


def test_each_request_is_one_line_without_its_text(guarded, tmp_path):
    _, ask = guarded()
    answered = ask("POST", "/v1/predict", json=BODY, headers={"x-request-id": "r-1"})
    ask("POST", "/v1/predict", content=b"{xyzzy")
    ask("GET", "/xyzzy")
    first, second, third = lines(tmp_path)
    assert (first["request_id"], first["outcome"], first["status"]) == ("r-1", "answered", 200)
    assert (first["route"], first["num_texts"]) == ("/v1/predict", 1)
    assert first["sent_bytes"] == len(answered.content)
    assert first["received_bytes"] == len(answered.request.content)
    assert {"tokenize_ms", "queue_ms", "compute_ms"} <= set(first)
    assert (second["outcome"], second["status"]) == ("invalid_json", 400)
    assert (third["outcome"], third["route"], third["digest"]) == (
        "path_not_found",
        None,
        SERVED.digest,
    )
    assert "xyzzy" not in (tmp_path / "logs/access-r1.jsonl").read_text()


def test_equal_inputs_have_equal_digests_that_nobody_else_can_compute(guarded, tmp_path):
    import hashlib

    _, ask = guarded()
    for body in ({"inputs": ["a"]}, {"inputs": ["a"]}, {"inputs": ["b"]}):
        content = ask("POST", "/v1/predict", json=body).request.content
    a, again, b = (record["input_digest"] for record in lines(tmp_path))
    assert a == again != b
    assert b != hashlib.blake2b(content, digest_size=16).hexdigest()


def test_the_key_of_a_request_is_named_by_its_public_id(guarded, keys, tmp_path):
    key, headers, ask = locked(guarded, keys)
    ask("POST", "/v1/predict", json=BODY, headers=headers)
    ask("POST", "/v1/predict", json=BODY)
    first, second = lines(tmp_path)
    assert (first["key"], second["key"], second["outcome"]) == (key.id, None, "key_missing")
    assert (
        headers["authorization"].split()[1] not in (tmp_path / "logs/access-r1.jsonl").read_text()
    )


def test_captured_texts_are_masked_and_linked_to_their_request(guarded, tmp_path):
    guards, ask = guarded(capture={"share": 1.0})
    ask("POST", "/v1/predict", json=BODY, headers={"x-request-id": "r-1"})
    guards.observer.close()
    (path,) = (tmp_path / "logs").glob("capture-*.jsonl")
    record = json.loads(path.read_text())
    assert record["texts"] == ["good xyzzy film, write to [EMAIL]"]
    assert (record["request_id"], record["labels"]) == ("r-1", ["positive"])


def test_nothing_is_captured_unless_it_is_switched_on(guarded, tmp_path):
    _, ask = guarded()
    ask("POST", "/v1/predict", json=BODY)
    assert not list((tmp_path / "logs").glob("capture-*"))


def test_messages_of_the_replica_stand_beside_its_requests(guarded, tmp_path):
    guarded()
    logging.getLogger("kovar.anything").warning("the %s is full", "disk")
    (record,) = lines(tmp_path, "log")
    assert (record["level"], record["message"]) == ("warning", "the disk is full")


def test_what_the_guards_change_of_logging_ends_with_them(guarded):
    logger = logging.getLogger("kovar")
    before = (logger.level, list(logger.handlers))
    guards, _ = guarded()
    assert logger.handlers != before[1]
    guards.close()
    assert (logger.level, list(logger.handlers)) == before


def test_without_an_access_log_nothing_is_written(guarded, tmp_path):
    _, ask = guarded(access_log=False)
    assert ask("POST", "/v1/predict", json=BODY).status_code == 200
    assert not (tmp_path / "logs").exists()


def test_a_client_that_goes_away_is_noted(guarded, runner, runtime, tmp_path):
    guards, _ = guarded()
    app = create_api(
        [served_model(SERVED, runner, runtime)], limits=LIMITS, middlewares=guards.middlewares
    )

    async def leave():
        runtime.gate.clear()
        task = asyncio.ensure_future(send(app, "POST", "/v1/predict", json=BODY))
        await asyncio.to_thread(runtime.busy.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        runtime.gate.set()

    asyncio.run(leave())
    assert (lines(tmp_path)[0]["outcome"], guards.observer.num_running) == ("client_gone", 0)


def test_calls_of_grpc_pass_the_same_gate(guarded, keys):
    from kovar.errors import RequestError
    from kovar.serving.exchange import Exchange

    key, token = issue("caller", ("predict",))
    add_key(keys, key)
    guards, _ = guarded(access={"keys": str(keys)})
    exchange = Exchange(route="grpc:ModelInfer", method="RPC")
    with guards.admit_rpc({"authorization": f"Bearer {token}"}, "predict", exchange):
        assert exchange.key_id == key.id
    with guards.admit_rpc({}, None, Exchange()):
        pass
    with pytest.raises(RequestError) as refused, guards.admit_rpc({}, "predict", Exchange()):
        pass
    assert refused.value.code == "key_missing"


def test_calls_of_grpc_that_only_read_can_be_opened_as_over_http(guarded, keys):
    from kovar.serving.exchange import Exchange

    add_key(keys, issue("caller", ("predict",))[0])
    guards, _ = guarded(access={"keys": str(keys), "open": ("metadata",)})
    for scope in ("metadata", None):
        with guards.admit_rpc({}, scope, Exchange()):
            pass


def test_the_openapi_document_names_the_key_where_one_is_needed(runner, runtime):
    models = [served_model(SERVED, runner, runtime)]
    for keyed in (True, False):
        app = create_api(models, limits=LIMITS, keyed=keyed)
        document = asyncio.run(send(app, "GET", "/openapi.json")).json()
        assert ("securitySchemes" in document["components"]) == keyed
        assert document.get("security", []) == ([{"bearer": []}, {"header": []}] if keyed else [])


def test_a_runtime_that_was_left_out_is_told_to_prometheus(tmp_path):
    told = {}

    class Told:
        def add(self, name, labels, value):
            pass

        observe = add

        def set(self, name, labels, value):
            told[name, labels.get("runtime")] = value

    served = replace(SERVED, left_out=("onnx fp32",))
    spec = ServingSpec(model="m", observe=ObserveSettings(access_log=False))
    Guards(spec, (served,), name="r1", folder=tmp_path, sink=Told()).close()
    assert told["kovar_runtime_left_out", "onnx fp32"] == 1


def test_what_waits_is_told_by_version_and_as_nothing_once_it_has_run(tmp_path):
    waiting = [{("m", "3"): Queued(2, 9), ("adapter", "1"): Queued(1, 4)}, {}]

    class Queue:
        def queued(self):
            return waiting.pop(0)

        def load(self):
            return Load(0, 0.0, None, None, None)

    spec = ServingSpec(model="m", observe=ObserveSettings(access_log=False))
    guards = Guards(spec, (replace(SERVED, model="m", version=3),), name="r", folder=None,
                    sink=None)  # fmt: skip
    guards.watch(Queue())

    def queued(name):
        return {of["model"]: n for told, of, n in guards._gauges() if told == name}

    assert queued("kovar_queued_tokens") == {"m": 9, "adapter": 4}
    assert queued("kovar_queued_texts") == {"m": 0, "adapter": 0}


def test_the_path_that_is_judged_is_the_path_that_answers(guarded, keys, runner, runtime):
    key, token = issue("reader", ("metadata",))
    add_key(keys, key)
    guards, _ = guarded(access={"keys": str(keys)})
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS,
                     middlewares=guards.middlewares)  # fmt: skip

    async def under(scope, receive, send) -> None:
        await app(scope | {"root_path": "/films"}, receive, send)

    def status(method, path):
        headers = {"authorization": f"Bearer {token}"}
        return asyncio.run(send(under, method, path, headers=headers)).status_code

    assert status("GET", "/films/v2") == 200
    assert status("POST", "/films/v1/predict") == 403
    assert status("GET", "/films/films/v2") == 404
    assert status("GET", "/filmsv2") == 404
