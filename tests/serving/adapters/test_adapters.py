"""Adapters behind one replica: loaded on demand, and the model repository that shows them."""

from __future__ import annotations

import asyncio
import gc
import shutil
import time
import weakref
from pathlib import Path

import pytest
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from in_process import listening, send
from kovar.registry import Registry
from kovar.serving import read_args
from kovar.serving.adapters.binding import bind_adapters
from kovar.serving.replica import Replica
from kovar.serving.versions import bind_versions
from tiny_adapter import ADAPTER_ARGS, ADAPTERS
from tiny_version import TEXTS


def replica_of(settings, **adapters):
    spec = read_args(ADAPTER_ARGS | {"adapters": ADAPTERS | adapters})
    with Registry.open(settings) as registry:
        versions = bind_versions(spec, registry, settings)
        bound = bind_adapters(spec, registry)
    places = {"artifact_root": settings.artifact_root, "cache_dir": settings.cache_dir}
    return Replica(spec, versions, bound, **places)


@pytest.fixture
def replica(settings):
    replica = replica_of(settings)
    yield replica
    replica.__del__()


@pytest.fixture
def ask(replica):
    app = replica.__serve_build_asgi_app__()

    def ask(method, path, **request):
        return asyncio.run(send(app, method, path, **request))

    return ask


def predict(ask, model):
    return ask("POST", "/v1/predict", json={"inputs": [TEXTS[0]], "model": model})


def states(ask, **body):
    return {one["name"]: one["state"] for one in ask("POST", "/v2/repository/index", **body).json()}


def test_an_adapter_is_loaded_by_its_first_request_and_goes_when_others_were_used_since(ask):
    assert states(ask) == {
        "films": "READY",
        "tenant-a": "UNAVAILABLE",
        "tenant-b": "UNAVAILABLE",
        "tenant-c": "UNAVAILABLE",
        "tenant-wrong": "UNAVAILABLE",
    }
    answers = [predict(ask, f"tenant-{name}") for name in "abac"]
    assert [one.json()["model"][-1] for one in answers] == ["a", "b", "a", "c"]
    assert answers[0].headers["x-kovar-model"] == "tenant-a"
    assert answers[0].json()["predictions"] == answers[2].json()["predictions"]
    assert set(answers[3].json()["predictions"][0]["scores"]) == {"bad", "fair", "good"}
    assert set(states(ask, json={"ready": True})) == {"films", "tenant-a", "tenant-c"}


def test_every_way_of_asking_reaches_an_adapter(ask):
    path = "/v2/models/tenant-c/versions/1"
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXTS[0]]}
    assert ask("GET", path).json()["outputs"][1]["shape"] == [-1, 3]
    assert ask("GET", f"{path}/ready").json() == {
        "name": "tenant-c",
        "ready": True,
        "loaded": False,
    }
    inferred = ask("POST", f"{path}/infer", json={"inputs": [tensor]})
    assert inferred.json()["outputs"][1]["shape"] == [1, 3]
    body = {"inputs": [TEXTS[0]], "model": "tenant-c", "attributions": True}
    explained = ask("POST", "/v1/predict", json=body)
    assert explained.json()["predictions"][0]["attributions"]
    embedded = ask("POST", "/v1/embeddings", json={"input": TEXTS[0], "model": "tenant-a"})
    assert len(embedded.json()["data"][0]["embedding"]) == 32


def test_an_adapter_that_answers_wrongly_fails_its_own_requests_alone(ask):
    refused = predict(ask, "tenant-wrong")
    assert (refused.status_code, refused.json()["code"]) == (503, "adapter_failed")
    assert "does not answer as it was evaluated" in refused.json()["error"]
    assert int(refused.headers["retry-after"]) >= 1
    assert ask("GET", "/v2/models/tenant-wrong/ready").status_code == 503
    assert ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert predict(ask, "tenant-a").status_code == 200


def test_a_bad_request_loads_nothing(ask):
    assert ask("POST", "/v1/predict", json={"inputs": [" "], "model": "tenant-a"}).is_error
    assert predict(ask, "tenant-stray").json()["code"] == "model_not_found"
    assert states(ask)["tenant-a"] == "UNAVAILABLE"


def test_an_adapter_that_goes_leaves_no_memory_behind(replica, ask):
    predict(ask, "tenant-a")
    held = asyncio.run(replica._adapters.take(_digest(replica, "tenant-a"), time.monotonic() + 10))
    gone = weakref.ref(held.run.__self__)  # the runtime, which has the weights
    replica._adapters.give_back(held)
    del held
    ask("POST", "/v2/repository/models/tenant-a/unload")
    asyncio.run(until_gone(gone))


async def until_gone(reference):
    # The runtime's thread lets a batch go just after it has answered it.
    async with asyncio.timeout(5):
        while reference() is not None:
            gc.collect()
            await asyncio.sleep(0.001)


def _digest(replica, name):
    return next(one.served.digest for one in replica._models if one.served.model == name)


def test_many_adapters_are_asked_at_once(replica):
    app = replica.__serve_build_asgi_app__()
    names = [f"tenant-{name}" for name in "abab" * 5]

    async def all_of_them():
        bodies = [{"inputs": list(TEXTS), "model": name} for name in names]
        sent = [send(app, "POST", "/v1/predict", json=body) for body in bodies]
        return await asyncio.gather(*sent)

    answers = asyncio.run(all_of_them())
    assert [one.json()["model"] for one in answers] == names
    different = {(one.json()["model"], str(one.json()["predictions"])) for one in answers}
    assert len({round(float(scores.split("'score': ")[1][:8]), 5) for _, scores in different}) == 2


@pytest.fixture
def collected():
    """Collect garbage in this thread: no other one may close Triton's client once more."""
    yield
    gc.collect()


@pytest.mark.usefixtures("collected")
def test_tritons_client_loads_and_unloads(replica, settings):
    with (
        listening(replica.__serve_build_asgi_app__()) as (host, port),
        triton_http.InferenceServerClient(f"{host}:{port}") as client,
    ):
        client.load_model("tenant-a")
        index = {one["name"]: one["state"] for one in client.get_model_repository_index()}
        assert (index["tenant-a"], index["tenant-b"]) == ("READY", "UNAVAILABLE")
        client.unload_model("tenant-a")
        index = {one["name"]: one["state"] for one in client.get_model_repository_index()}
        assert index["tenant-a"] == "UNAVAILABLE"
        assert client.is_model_ready("tenant-a")
        for ask, says in (
            (lambda: client.unload_model("films"), "always in memory"),
            (lambda: client.load_model("tenant-wrong"), "as it was evaluated"),
            (lambda: client.load_model("other"), "unknown model"),
            (lambda: client.load_model("tenant-a", config="{}"), "without config"),
        ):
            with pytest.raises(InferenceServerException, match=says):
                ask()


def test_grpc_loads_and_unloads(replica):
    class Context:
        code = None

        def invocation_metadata(self):
            return []

        def set_code(self, code):
            self.code = code

        def set_details(self, details):
            self.details = details

        def set_trailing_metadata(self, metadata):
            self.trailing = dict(metadata)

    def call(name, **fields):
        context = Context()
        request = getattr(service_pb2, f"{name}Request")(**fields).SerializeToString()
        answer = asyncio.run(getattr(replica, name)(request, context)).SerializeToString()
        return getattr(service_pb2, f"{name}Response").FromString(answer), context

    _, context = call("RepositoryModelLoad", model_name="tenant-a")
    assert (context.code, context.trailing["x-kovar-model"]) == (None, "tenant-a")
    ready, _ = call("RepositoryIndex", ready=True)
    assert [one.name for one in ready.models] == ["films", "tenant-a"]
    call("RepositoryModelUnload", model_name="tenant-a")
    _, context = call("RepositoryModelUnload", model_name="films")
    assert context.details.endswith("[always_loaded]")


def test_adapters_may_be_merged_when_they_are_loaded(settings, ask):
    replica = replica_of(settings, merge=True)
    app = replica.__serve_build_asgi_app__()
    body = {"inputs": [TEXTS[0]], "model": "tenant-a"}
    merged = asyncio.run(send(app, "POST", "/v1/predict", json=body)).json()
    beside = predict(ask, "tenant-a").json()
    scores = [one["predictions"][0]["score"] for one in (merged, beside)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    replica.__del__()


def test_what_is_preloaded_is_there_and_files_that_are_gone_fail_their_own_adapter(settings):
    replica = replica_of(settings, preload=["tenant-a"])
    app = replica.__serve_build_asgi_app__()

    def ask(method, path, **request):
        return asyncio.run(send(app, method, path, **request))

    assert set(states(ask, json={"ready": True})) == {"films", "tenant-a"}
    with Registry.open(settings) as registry:
        version = registry.version("tenant-b", "champion")
    weights = next(file for file in version.manifest.files if file.path.startswith("adapter_model"))
    blob = next(path for path in _files(settings) if path.name == weights.sha256)
    shutil.rmtree(settings.cache_dir / "versions" / version.digest, ignore_errors=True)
    blob.rename(blob.with_suffix(".away"))
    refused = predict(ask, "tenant-b")
    blob.with_suffix(".away").rename(blob)
    assert refused.json()["code"] == "adapter_failed"
    assert "missing or damaged" in refused.json()["error"]
    replica.__del__()


def _files(settings):
    return Path(settings.artifact_root).rglob("*")


def test_adapters_are_counted(replica, ask):
    predict(ask, "tenant-a")
    predict(ask, "tenant-wrong")
    gauges = {
        (name, labels["model"]): value
        for name, labels, value in replica._guards._gauges()
        if "model" in labels
    }
    assert gauges["kovar_adapter_loaded", "tenant-a"] == 1
    assert gauges["kovar_adapter_loaded", "tenant-b"] == 0
    assert gauges["kovar_golden_check", "tenant-wrong"] == 0
    assert ("kovar_golden_check", "tenant-b") not in gauges
    sums = {(name, *labels.values()): value for name, labels, value in replica._guards._sums()}
    assert sums["kovar_adapter_loads", "failed"] == 1
