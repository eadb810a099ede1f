"""Which adapters an application serves, and what is refused before anything starts."""

from __future__ import annotations

import pytest
import yaml

from kovar.errors import NotFoundError, UntrustedVersionError, UserError
from kovar.planning import plan_specs
from kovar.registry import Registry
from kovar.registry.signing_keys import generate_keys
from kovar.resources import Cluster, NodeType
from kovar.serving import read_args
from kovar.serving.adapters.binding import bind_adapters
from kovar.serving.versions import further_weights
from tiny_adapter import ADAPTER_ARGS, ADAPTERS

BAD = {
    "a whole model": ({"models": [{"model": "films"}]}, "adapters.models[0].model", "whole model"),
    "another base": (
        {"models": [{"model": "tenant-stray"}]},
        "adapters.models[0].model",
        "adapter of another base",
    ),
    "nothing found": (
        {"models": [{"model": "tenant-a"}, {"model": "nobody-*"}]},
        "adapters.models[1].model",
        "no model of this name",
    ),
    "named twice": (
        {"models": [{"model": "tenant-a"}, {"model": "tenant-a", "version": "1"}]},
        "adapters.models[1].version",
        "served already",
    ),
    "unknown preload": ({"preload": ["tenant-x"]}, "adapters.preload[0]", "none of the"),
    "no base": ({"base": None}, "adapters.base", "no adapter"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_adapters_that_cannot_be_served_are_refused_before_anything_starts(settings, mistake):
    fields, field, says = BAD[mistake]
    spec = read_args(ADAPTER_ARGS | {"adapters": ADAPTERS | fields})
    with Registry.open(settings) as registry, pytest.raises(UserError, match=says) as refusal:
        bind_adapters(spec, registry)
    assert refusal.value.field == field


def test_a_name_that_the_registry_does_not_have_is_refused(settings):
    spec = read_args(ADAPTER_ARGS | {"adapters": ADAPTERS | {"models": [{"model": "tenant-x"}]}})
    with Registry.open(settings) as registry, pytest.raises(NotFoundError):
        bind_adapters(spec, registry)


def test_a_plan_of_adapters_that_are_yet_to_be_trained_says_so(settings, tmp_path):
    args = ADAPTER_ARGS | {"adapters": ADAPTERS | {"models": [{"model": "nobody-*"}]}}
    application = {"name": "films", "import_path": "kovar.serving.app:build", "args": args}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}))
    node = NodeType("node", 8, memory_bytes=8 << 30, min_count=1, max_count=1, is_head=True)
    (entry,) = plan_specs([path], cluster=Cluster((node,)), settings=settings).entries
    assert "known once there is such a version: no model of this name" in entry.estimate.notes[0]


def test_the_base_is_that_of_the_first_model_where_that_is_an_adapter(settings):
    fields = {"models": [{"model": "tenant-[bc]"}]}
    spec = read_args({"model": "tenant-a", "adapters": fields})
    with Registry.open(settings) as registry:
        bound = bind_adapters(spec, registry)
        assert further_weights(spec, registry) > bound.largest_bytes * 3
    assert (bound.base.model, [one.model for one in bound.versions]) == (
        "base",
        ["tenant-b", "tenant-c"],
    )


def test_adapters_that_no_trusted_key_signed_are_refused(settings, tmp_path):
    trusting = settings.model_copy(update={"trusted_keys": (generate_keys(tmp_path / "key"),)})
    spec = read_args(ADAPTER_ARGS)
    with Registry.open(trusting) as registry, pytest.raises(UntrustedVersionError, match="tenant-"):
        bind_adapters(spec, registry)
