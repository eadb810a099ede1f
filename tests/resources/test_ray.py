from pathlib import Path

import pytest

from kovar.errors import SpecError
from kovar.resources import CpuRequest, GpuRequest, Resources, TpuRequest
from kovar.resources.ray import (
    actor_options,
    replica_options,
    scaling_config_kwargs,
    trial_resources,
)

GIB = 1 << 30
NOT_SPOT = {"label_selector": {"kovar.dev/spot": "!true"}}
PACK = {"placement_strategy": "PACK"}
SCALING = [
    (
        Resources(num_workers=2, worker=CpuRequest(cpus=1)),
        {"num_workers": 2, "resources_per_worker": {"CPU": 1}, **PACK, **NOT_SPOT},
    ),
    (
        Resources(
            num_workers={"min": 2, "max": 4},
            worker=CpuRequest(cpus=2, memory=GIB, spot=True, labels={"zone": "in(a, b)"}),
            placement="strict_spread",
        ),
        {
            "num_workers": (2, 4),
            "resources_per_worker": {"CPU": 2, "memory": GIB},
            "placement_strategy": "STRICT_SPREAD",
            "label_selector": {"zone": "in(a, b)"},
        },
    ),
    (
        Resources(
            num_workers=4,
            worker=GpuRequest(
                type=["A100", "H100"], count=2, cpus=8, spot=True, custom_resources={"FPGA": 1.0}
            ),
        ),
        {
            "num_workers": 4,
            "resources_per_worker": {"CPU": 8, "GPU": 2, "FPGA": 1},
            "use_gpu": True,
            "accelerator_type": "A100",
            **PACK,
        },
    ),
    (
        Resources(num_workers=2, worker=GpuRequest(count=0.5, spot=True)),
        {
            "num_workers": 2,
            "resources_per_worker": {"CPU": 1, "GPU": 0.5},
            "use_gpu": True,
            **PACK,
        },
    ),
    (
        Resources(num_workers=1, worker=TpuRequest(type="v5e", topology="2x4")),
        {
            "num_workers": 1,
            "resources_per_worker": {"CPU": 1, "TPU": 8},
            "use_tpu": True,
            "accelerator_type": "TPU-V5LITEPOD",
            "topology": "2x4",
            **PACK,
            **NOT_SPOT,
        },
    ),
    (
        Resources(num_workers={"min": 2, "max": 4}, worker=TpuRequest(type="v4", topology="2x2x2")),
        {
            "num_workers": (2, 4),
            "resources_per_worker": {"CPU": 1, "TPU": 4},
            "use_tpu": True,
            "accelerator_type": "TPU-V4",
            "topology": "2x2x2",
            **PACK,
        },
    ),
]


@pytest.mark.parametrize(("resources", "expected"), SCALING)
def test_resources_become_arguments_that_ray_train_accepts(resources, expected):
    from ray.train import ScalingConfig

    kwargs = scaling_config_kwargs(resources)
    assert kwargs == expected
    config = ScalingConfig(**kwargs)
    assert config.max_workers == resources.num_workers.max
    assert config.total_resources["CPU"] == resources.worker.cpus * config.max_workers


def test_ray_train_is_asked_for_what_the_plan_chose():
    resources = Resources(num_workers=2, worker=GpuRequest(type=["A100", "L4"], gpu_memory=GIB))
    chosen = GpuRequest(type="L4", count=0.25)
    kwargs = scaling_config_kwargs(resources, chosen)
    assert kwargs["accelerator_type"] == "L4"
    assert kwargs["resources_per_worker"]["GPU"] == 0.25


def test_labels_on_tpu_slices_are_refused_as_ray_train_does():
    worker = TpuRequest(type="v4", topology="2x2x2", labels={"zone": "a"})
    with pytest.raises(SpecError, match="no other labels") as caught:
        scaling_config_kwargs(Resources(num_workers=2, worker=worker))
    assert caught.value.field == "resources.worker.labels"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (CpuRequest(cpus=0.5), {"num_cpus": 0.5, **NOT_SPOT}),
        (CpuRequest(cpus=2, memory=GIB, spot=True), {"num_cpus": 2, "memory": GIB}),
        (
            CpuRequest(custom_resources={"FPGA": 0.5}, labels={"zone": "!a"}),
            {
                "num_cpus": 1,
                "resources": {"FPGA": 0.5},
                "label_selector": {"zone": "!a", "kovar.dev/spot": "!true"},
            },
        ),
        (GpuRequest(count=0.25, spot=True), {"num_cpus": 1, "num_gpus": 0.25}),
        (
            GpuRequest(type="L4"),
            {"num_cpus": 1, "num_gpus": 1, "accelerator_type": "L4", **NOT_SPOT},
        ),
        (
            TpuRequest(type="v6e", topology="2x2", cpus=4, spot=True),
            {"num_cpus": 4, "accelerator_type": "TPU-V6E", "resources": {"TPU": 4}},
        ),
    ],
)
def test_a_request_becomes_actor_options_that_ray_accepts(request_, expected):
    import ray
    from ray.serve.schema import RayActorOptionsSchema

    options = actor_options(request_)
    assert options == expected
    RayActorOptionsSchema(**options)
    ray.remote(type("Replica", (), {})).options(**options)


@pytest.mark.parametrize(
    ("request_", "bundle"),
    [
        (CpuRequest(cpus=2, memory=GIB), {"CPU": 2, "memory": GIB}),
        (
            GpuRequest(type="L4", count=0.5, custom_resources={"FPGA": 1.0}),
            {"CPU": 1, "GPU": 0.5, "FPGA": 1, "accelerator_type:L4": 0.001},
        ),
        (GpuRequest(count=2), {"CPU": 1, "GPU": 2}),
        (
            TpuRequest(type="v6e", topology="2x2"),
            {"CPU": 1, "TPU": 4, "accelerator_type:TPU-V6E": 0.001},
        ),
    ],
)
def test_a_request_becomes_the_bundle_of_a_trial(request_, bundle):
    from ray.tune import PlacementGroupFactory

    factory = PlacementGroupFactory(**trial_resources(request_))
    assert factory.bundles == [bundle]
    assert trial_resources(request_)["bundle_label_selector"] == [{"kovar.dev/spot": "!true"}]


def test_a_trial_on_spot_nodes_selects_no_labels():
    assert trial_resources(CpuRequest(spot=True)) == {"bundles": [{"CPU": 1}]}


@pytest.mark.parametrize(
    ("placement", "most"), [("pack", None), ("spread", None), ("strict_spread", 1)]
)
def test_replicas_can_be_kept_apart(placement, most):
    from ray import serve

    options = replica_options(CpuRequest(), placement)
    assert options.get("max_replicas_per_node") == most
    serve.deployment(type("Replica", (), {})).options(**options)


def test_replicas_cannot_be_kept_together():
    with pytest.raises(SpecError, match="on one node"):
        replica_options(CpuRequest(), "strict_pack")


@pytest.mark.parametrize("translate", [actor_options, trial_resources])
def test_no_actor_spans_several_hosts(translate):
    request = TpuRequest(type="v5e", topology="4x4")
    with pytest.raises(SpecError, match="this slice has 4") as caught:
        translate(request, field="replica")
    assert caught.value.field == "replica.topology"
    assert "use topology: 2x4" in str(caught.value)


@pytest.mark.ray
def test_nodes_without_labels_are_taken_for_nodes_that_stay(ray_session):
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    request = CpuRequest(labels={"zone": "!a"})
    actor = ray.remote(Replica).options(**actor_options(request)).remote()
    assert ray.get(actor.answer.remote(), timeout=60) == 42
    group = placement_group(**trial_resources(request))
    assert group.wait(60)
    remove_placement_group(group)
    ray.kill(actor)


@pytest.mark.ray
def test_ray_train_runs_on_nodes_without_labels(ray_session, tmp_path):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        note_the_world,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=ScalingConfig(**scaling_config_kwargs(Resources(num_workers=2))),
        run_config=RunConfig(storage_path=str(tmp_path / "ray")),
    ).fit()
    assert {path.name for path in tmp_path.iterdir()} == {"0-of-2", "1-of-2", "ray"}


class Replica:
    def answer(self):
        return 42


def note_the_world(config):
    from ray import train

    context = train.get_context()
    name = f"{context.get_world_rank()}-of-{context.get_world_size()}"
    (Path(config["folder"]) / name).touch()
