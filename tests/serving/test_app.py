"""The builder: arguments, resolution of the version, options of the deployment."""

from __future__ import annotations

import pytest

from kovar.errors import NotFoundError, SpecError, UntrustedVersionError
from kovar.registry.signing_keys import generate_keys
from kovar.serving import ServingSpec, build, read_args
from kovar.serving.app import deployment_options
from tiny_version import build_tiny_version, environment_of, register_tiny_version, settings_in

MISTAKES = {
    "no model": ({}, "model", "required"),
    "misspelled": ({"modle": "a"}, "modle", 'did you mean "model"'),
    "a number as a name": ({"model": 3}, "model", "string"),
    "unknown runtime": ({"model": "a", "runtime": "torhc"}, "runtime", 'did you mean "torch"'),
    "unknown precision": ({"model": "a", "precision": "int3"}, "precision", "allowed values"),
    "a limit of zero": ({"model": "a", "limits": {"max_inputs": 0}}, "limits.max_inputs", "1"),
    "a size in words": ({"model": "a", "limits": {"max_body_bytes": "big"}}, "limits", "4GiB"),
    "no replicas": ({"model": "a", "num_replicas": 0}, "num_replicas", "from 1"),
    "a reversed range": (
        {"model": "a", "num_replicas": {"min": 3, "max": 2}},
        "num_replicas.max",
        "at least min",
    ),
    "a chip without a runtime": (
        {"model": "a", "replica": {"kind": "tpu", "type": "v5e", "topology": "2x2"}},
        "replica",
        "cpu or gpu",
    ),
    "a request larger than the queue": (
        {"model": "a", "limits": {"max_inputs": 9, "max_queued": 8}},
        "limits",
        "larger than max_queued",
    ),
}


def options_of(spec):
    return deployment_options(spec, spec.replica)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_arguments_names_its_field(mistake):
    args, field, message = MISTAKES[mistake]
    with pytest.raises(SpecError) as refusal:
        read_args(args)
    assert refusal.value.field.startswith(field)
    assert message in str(refusal.value)


def test_a_number_of_replicas_is_fixed_and_a_range_follows_the_traffic():
    fixed = options_of(read_args({"model": "a", "num_replicas": 2}))
    assert fixed["num_replicas"] == 2
    assert "autoscaling_config" not in fixed
    elastic = options_of(read_args({"model": "a", "num_replicas": {"min": 1, "max": 4}}))
    assert elastic["autoscaling_config"]["max_replicas"] == 4
    assert "num_replicas" not in elastic


def test_serve_accepts_the_options_and_keeps_those_that_save_requests():
    from ray import serve

    options = options_of(ServingSpec(model="a"))
    deployment = serve.deployment(type("Empty", (), {})).options(**options)
    config = deployment._deployment_config
    assert config.backpressure_config.status_code == 429
    assert config.request_router_config.max_backoff_s == 0.02
    assert config.max_surge_percent > 0
    assert config.max_ongoing_requests > ServingSpec(model="a").limits.max_queued


def test_a_gpu_replica_asks_ray_for_a_gpu_and_computes_on_it():
    spec = read_args({"model": "a", "replica": {"kind": "gpu", "type": "L4", "cpus": 4}})
    assert options_of(spec)["ray_actor_options"] == {
        "num_cpus": 4.0,
        "num_gpus": 1.0,
        "accelerator_type": "L4",
        "label_selector": {"kovar.dev/spot": "!true"},
    }
    assert spec.device == "cuda"


@pytest.fixture
def registered(tmp_path, monkeypatch):
    settings = settings_in(tmp_path)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    return register_tiny_version(settings, build_tiny_version(tmp_path / "tiny"))


def test_an_alias_is_resolved_to_one_version_when_the_application_is_built(registered):
    application = build({"model": "tiny", "version": "champion"})
    _, versions, adapters = application._bound_deployment.init_args
    assert adapters is None
    assert [one.version.digest for one in versions] == [registered.digest]


def test_no_database_url_travels_to_the_replicas(registered):
    application = build({"model": "tiny"})
    bound = application._bound_deployment.init_kwargs
    assert set(bound) == {"artifact_root", "cache_dir"}


def test_a_version_that_no_trusted_key_signed_is_not_served(registered, tmp_path, monkeypatch):
    monkeypatch.setenv("KOVAR_TRUSTED_KEYS", str(generate_keys(tmp_path / "key")))
    with pytest.raises(UntrustedVersionError, match="is not signed"):
        build({"model": "tiny"})


@pytest.mark.parametrize("args", [{"model": "tyni"}, {"model": "tiny", "version": "7"}])
def test_a_version_that_does_not_exist_is_not_found(registered, args):
    with pytest.raises(NotFoundError):
        build(args)


def test_a_batch_that_cannot_hold_one_whole_text_is_refused(registered):
    with pytest.raises(SpecError) as refusal:
        build({"model": "tiny", "batching": {"max_tokens": 63}})
    assert refusal.value.field == "batching.max_tokens"
