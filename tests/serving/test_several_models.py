"""Several models, and several versions of one, in one application."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from in_process import SERVED, send
from kovar.errors import SpecError
from kovar.inference import (
    BatchLimits,
    BatchRecord,
    BatchRunner,
    load_runtime,
    share_weights,
)
from kovar.models import ADAPTER_CONFIG, build_classifier, check_folder, put_adapter, save_adapter
from kovar.registry import Registry
from kovar.serving import ServingSpec, build, read_args
from kovar.serving.replica import Replica
from kovar.serving.served_model import served_model
from kovar.serving.versions import bind_versions
from scripted import ScriptedRuntime
from tiny import build_tiny_encoder
from tiny_version import (
    LABELS,
    TEXTS,
    build_tiny_version,
    environment_of,
    register_tiny_version,
    settings_in,
)

ARGS = {
    "model": "films",
    "version": "candidate",
    "runtime": "torch",
    "more_models": [{"model": "films", "version": "1"}, {"model": "mails"}],
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    settings = settings_in(folder)
    names = [("films", "champion"), ("films", "candidate"), ("mails", "champion")]
    for seed, (model, alias) in enumerate(names):
        built = build_tiny_version(folder / f"tiny-{seed}", seed=seed)
        register_tiny_version(settings, built, model=model, alias=alias)
    return settings


@pytest.fixture(scope="module")
def ask(settings):
    spec = read_args(ARGS)
    with Registry.open(settings) as registry:
        versions = bind_versions(spec, registry, settings)
    places = {"artifact_root": settings.artifact_root, "cache_dir": settings.cache_dir}
    replica = Replica(spec, versions, **places)
    app = replica.__serve_build_asgi_app__()

    def ask(method, path, **request):
        return asyncio.run(send(app, method, path, **request))

    yield ask
    replica.check_health()


def test_each_model_and_version_answers_for_itself(ask):
    paths = ["films", "films/versions/2", "films/versions/1", "mails"]
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXTS[0]]}
    answers = [ask("POST", f"/v2/models/{path}/infer", json={"inputs": [tensor]}) for path in paths]
    scores = [tuple(answer.json()["outputs"][1]["data"]) for answer in answers]
    assert scores[0] == scores[1]
    assert len(set(scores)) == 3
    named = [(one.headers["x-kovar-model"], one.headers["x-kovar-version"]) for one in answers]
    assert named == [("films", "2"), ("films", "2"), ("films", "1"), ("mails", "1")]


def test_the_batches_of_each_model_and_version_are_counted_apart():
    records: list[BatchRecord] = []
    runtime = ScriptedRuntime()
    limits = BatchLimits(max_rows=4, max_tokens=64)
    runner = BatchRunner(runtime, limits=limits, max_queued=8, on_batch=records.append)
    for version in (2, 3):
        model = served_model(replace(SERVED, version=version), runner, runtime)
        asyncio.run(model.ask(["fine"], deadline=time.monotonic() + 20, run=model.run))
    runner.close()
    assert [one.owner for one in records] == [(SERVED.model, "2"), (SERVED.model, "3")]


def test_a_prediction_names_its_model_and_the_first_one_is_the_default(ask):
    def predicted(**body):
        return ask("POST", "/v1/predict", json={"inputs": ["fine"]} | body).json()

    assert (predicted()["model"], predicted()["version"]) == ("films", 2)
    assert predicted(model="mails")["model"] == "mails"


def test_metadata_lists_versions_and_models(ask):
    assert ask("GET", "/v2/models/films").json()["versions"] == ["2", "1"]
    index = ask("POST", "/v2/repository/index").json()
    assert [(one["name"], one["version"]) for one in index] == [
        ("films", "2"),
        ("films", "1"),
        ("mails", "1"),
    ]
    assert ask("GET", "/v2/models/films/versions/3").json()["code"] == "version_not_found"


def test_a_version_that_is_named_twice_is_refused(settings, monkeypatch):
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpecError, match="already") as refusal:
        build({"model": "films", "more_models": [{"model": "films", "version": "champion"}]})
    assert refusal.value.field == "more_models[0].version"


def test_the_models_of_a_spec_are_checked():
    with pytest.raises(SpecError) as refusal:
        read_args({"model": "films", "more_models": [{"modle": "mails"}]})
    assert refusal.value.field == "more_models[0].modle"
    assert ServingSpec(model="films").more_models == ()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters of one base, with other weights in the queries and the heads."""
    import torch

    folder = tmp_path_factory.mktemp("adapters")
    base = check_folder(build_tiny_encoder(folder / "base"), source="tiny")
    fields = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "use_dora": False}
    fields |= {"target_modules": ["query"], "modules_to_save": ["classifier"]}
    for seed, name in enumerate(["first", "second"]):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = put_adapter(build_classifier(base, labels=LABELS), fields)
            for key, tensor in model.named_parameters():
                if "lora_B" in key:
                    torch.nn.init.normal_(tensor)
        save_adapter(model, base, folder / name, max_length=64)
    assert (folder / "first" / ADAPTER_CONFIG).exists()
    return folder


def test_adapters_of_one_base_share_all_that_they_do_not_change(adapters):
    first, second = (
        load_runtime(adapters / name, runtime="torch", base_folder=adapters / "base")
        for name in ("first", "second")
    )
    alone = [second.run(second.tokenize(TEXTS)), first.run(first.tokenize(TEXTS))]
    num_bytes = share_weights([first, second])
    own = [
        name
        for (name, one), (_, other) in zip(
            first.module.named_parameters(), second.module.named_parameters(), strict=True
        )
        if one.data_ptr() != other.data_ptr()
    ]
    assert own
    assert all("query.weight" in name or name.startswith("classifier.") for name in own)
    assert num_bytes > sum(parameter.nbytes for parameter in second.module.parameters()) / 2
    assert [second.run(second.tokenize(TEXTS)), first.run(first.tokenize(TEXTS))] == alone


def test_nothing_is_shared_twice(adapters):
    runtime = load_runtime(adapters / "first", runtime="torch", base_folder=adapters / "base")
    assert share_weights([runtime, runtime]) == 0
