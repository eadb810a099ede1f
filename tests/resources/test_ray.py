import pytest

from kovar.errors import SpecError
from kovar.resources import CpuRequest, GpuRequest, Resources, TpuRequest
from kovar.resources.ray import actor_options, scaling_config_kwargs

GIB = 1 << 30
SCALING = [
    (
        Resources(num_workers=2, worker=CpuRequest(cpus=1)),
        {"num_workers": 2, "resources_per_worker": {"CPU": 1}},
    ),
    (
        Resources(num_workers={"min": 2, "max": 4}, worker=CpuRequest(cpus=2, memory=GIB)),
        {"num_workers": (2, 4), "resources_per_worker": {"CPU": 2, "memory": GIB}},
    ),
    (
        Resources(num_workers=4, worker=GpuRequest(type="A100", count=2, cpus=8)),
        {
            "num_workers": 4,
            "resources_per_worker": {"CPU": 8, "GPU": 2},
            "use_gpu": True,
            "accelerator_type": "A100",
        },
    ),
    (
        Resources(num_workers=2, worker=GpuRequest(count=0.5)),
        {"num_workers": 2, "resources_per_worker": {"CPU": 1, "GPU": 0.5}, "use_gpu": True},
    ),
    (
        Resources(num_workers=1, worker=TpuRequest(type="v5e", topology="2x4")),
        {
            "num_workers": 1,
            "resources_per_worker": {"CPU": 1, "TPU": 8},
            "use_tpu": True,
            "accelerator_type": "TPU-V5LITEPOD",
            "topology": "2x4",
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


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (CpuRequest(cpus=0.5), {"num_cpus": 0.5}),
        (CpuRequest(cpus=2, memory=GIB), {"num_cpus": 2, "memory": GIB}),
        (GpuRequest(count=0.25), {"num_cpus": 1, "num_gpus": 0.25}),
        (GpuRequest(type="L4"), {"num_cpus": 1, "num_gpus": 1, "accelerator_type": "L4"}),
        (
            TpuRequest(type="v6e", topology="2x2", cpus=4),
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


def test_no_actor_spans_several_hosts():
    request = TpuRequest(type="v5e", topology="4x4")
    with pytest.raises(SpecError, match="this slice has 4") as caught:
        actor_options(request, field="replica")
    assert caught.value.field == "replica.topology"
    assert "use topology: 2x4" in str(caught.value)
