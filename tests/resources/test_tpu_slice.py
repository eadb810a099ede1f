from ray._private.accelerators import tpu

from kovar.resources.request import GPU_TYPES
from kovar.resources.tpu_slice import (
    GKE_TPU_TYPES,
    GOOGLE_TPU_TYPES,
    RAY_TPU_TYPES,
    TOPOLOGIES,
    TPU_TYPES,
    chips_per_host,
    largest_on_one_host,
    num_chips,
    num_cores_per_chip,
    topology_of,
)


def ray_version(tpu_type: str) -> str:
    return RAY_TPU_TYPES[tpu_type].removeprefix("TPU-").lower()


def test_the_topologies_are_those_that_ray_accepts():
    for tpu_type in TPU_TYPES:
        assert set(TOPOLOGIES[tpu_type]) == tpu.VALID_TPU_TOPOLOGY[ray_version(tpu_type)]


def test_chips_and_cores_agree_with_ray_for_every_topology():
    for tpu_type in TPU_TYPES:
        version = ray_version(tpu_type)
        assert num_cores_per_chip(tpu_type) == tpu.get_tpu_cores_per_chip(version)
        for topology in TOPOLOGIES[tpu_type]:
            assert num_chips(topology) == tpu.get_num_chips_from_topology(topology)
            assert chips_per_host(topology) == tpu.get_chips_per_host(topology, version)


def test_accelerator_names_are_constants_of_ray():
    from ray.util.accelerators import accelerators

    known = {value for name, value in vars(accelerators).items() if name.isupper()}
    assert set(GPU_TYPES) <= known
    assert set(RAY_TPU_TYPES.values()) <= known


def test_a_slice_size_gets_the_shape_nearest_to_a_cube():
    assert [topology_of("v5e", chips) for chips in (1, 4, 8, 16, 32)] == [
        "1x1",
        "2x2",
        "2x4",
        "4x4",
        "4x8",
    ]
    assert [topology_of("v4", chips) for chips in (4, 8, 64)] == ["2x2x1", "2x2x2", "4x4x4"]
    assert topology_of("v6e", 3) is None


def test_google_names_mean_what_ray_takes_them_for():
    from ray.autoscaler._private.kuberay import utils

    spelled = {name: tpu_type for name, tpu_type in GOOGLE_TPU_TYPES.items() if "_" not in name}
    for name, tpu_type in spelled.items():
        assert tpu.normalize_tpu_accelerator_type(name) == ray_version(tpu_type)
        assert tpu.TPUAcceleratorManager.is_valid_tpu_accelerator_type(f"{name}-8")
    assert {
        name: ray_version(tpu_type) for name, tpu_type in GKE_TPU_TYPES.items()
    } == utils.gke_tpu_accelerator_to_generation


def test_two_cores_per_chip_halve_the_number_in_googles_name():
    assert topology_of("v7x", 8 // num_cores_per_chip("v7x")) == "2x2x1"


def test_the_largest_slice_of_one_host():
    assert [largest_on_one_host(tpu_type) for tpu_type in TPU_TYPES] == [
        "2x2x1",
        "2x2x1",
        "2x4",
        "2x4",
        "2x2x1",
    ]
