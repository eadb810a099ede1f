"""The table of machine types, compared with what the clouds and Ray say."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files

import pytest

from kovar.resources.accelerators import ACCELERATORS
from kovar.resources.machine_types import (
    attached_gpu_types,
    machine_type,
    machine_types,
    misspelled,
    tpu_host,
)
from kovar.resources.tpu_slice import RAY_TPU_TYPES, TOPOLOGIES, chips_per_host

GIB = 1 << 30


def accelerators_of(described):
    gpus = described.get("GpuInfo", {}).get("Gpus")
    neuron = described.get("NeuronInfo", {}).get("NeuronDevices")
    if gpus:
        return gpus[0]["Name"], gpus[0]["Count"]
    if neuron:
        return "aws-neuron-core", neuron[0]["Count"] * neuron[0]["CoreInfo"]["Count"]
    return None, 0


def test_every_aws_size_is_as_ec2_describes_it():
    """Moto ships what EC2's DescribeInstanceTypes answers."""
    file = files("moto") / "ec2" / "resources" / "instance_types.json.gz"
    described = json.loads(gzip.decompress(file.read_bytes()))
    compared = [kind for kind in machine_types("aws") if kind.name in described]
    assert len(compared) > 150
    for kind in compared:
        real = described[kind.name]
        assert kind.cpus == real["VCpuInfo"]["DefaultVCpus"], kind
        assert kind.memory_bytes == real["MemoryInfo"]["SizeInMiB"] << 20, kind
        first = (*kind.accelerator_types, None)[0]
        assert (first, kind.num_accelerators) == accelerators_of(real), kind


def test_neuron_cores_are_counted_as_ray_counts_them():
    from ray._private.accelerators.neuron import AWS_NEURON_INSTANCE_MAP

    for name, cores in AWS_NEURON_INSTANCE_MAP.items():
        found = machine_type("aws", name)
        assert (found.resource, found.num_accelerators) == ("neuron_cores", cores)


@pytest.mark.parametrize(
    ("name", "cpus", "memory_gib", "accelerator", "count"),
    [
        ("n1-standard-8", 8, 30, None, 0),
        ("n2-highmem-128", 128, 864, None, 0),
        ("e2-highcpu-16", 16, 16, None, 0),
        ("c3-standard-22", 22, 88, None, 0),
        ("n2-custom-6-20480", 6, 20, None, 0),
        ("g2-standard-32", 32, 128, "L4", 1),
        ("g2-standard-48", 48, 192, "L4", 4),
        ("a2-highgpu-4g", 48, 340, "A100", 4),
        ("a2-megagpu-16g", 96, 1360, "A100", 16),
        ("a2-ultragpu-8g", 96, 1360, "A100", 8),
        ("a3-highgpu-1g", 26, 234, "H100", 1),
        ("a3-ultragpu-8g", 224, 2952, "H200", 8),
        ("a4-highgpu-8g", 224, 3968, "B200", 8),
    ],
)
def test_a_machine_of_google_cloud(name, cpus, memory_gib, accelerator, count):
    found = machine_type("gcp", name)
    assert (found.cpus, found.memory_bytes) == (cpus, memory_gib * GIB)
    assert ((*found.accelerator_types, None)[0], found.num_accelerators) == (accelerator, count)


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_accelerators_have_the_names_of_ray(cloud):
    named = {name for kind in machine_types(cloud) for name in kind.accelerator_types}
    assert named <= set(ACCELERATORS)
    assert all(kind.num_accelerators for kind in machine_types(cloud) if kind.accelerator_types)


def test_every_slice_of_one_host_has_a_host():
    hosts = {(kind, chips_per_host(shape)) for kind in RAY_TPU_TYPES for shape in TOPOLOGIES[kind]}
    assert all(tpu_host(*host) for host in hosts)
    assert tpu_host("v5e", 8).memory_bytes == 384 * GIB


def test_a_card_is_known_by_its_name_or_its_url():
    url = "projects/p/zones/us-central1-a/acceleratorTypes/nvidia-tesla-t4"
    assert attached_gpu_types(url) == attached_gpu_types("nvidia-tesla-t4") == ("T4",)
    assert attached_gpu_types("nvidia-unheard-of") == ()


@pytest.mark.parametrize(
    ("cloud", "name", "hint"),
    [
        ("aws", "m7i.2xlagre", "m7i.2xlarge"),
        ("aws", "p5.24xlarge", "p5.4xlarge"),
        ("gcp", "n2-standart-8", "n2-standard-8"),
        ("gcp", "a2-highgpu-3g", "a2-highgpu"),
    ],
)
def test_a_misspelled_machine_gets_a_hint(cloud, name, hint):
    assert hint in misspelled(cloud, name)


@pytest.mark.parametrize(
    ("cloud", "name"),
    [
        ("aws", "m9x.large"),
        ("gcp", "n4-standard-8"),
        ("gcp", "c3-standard-4-lssd"),
        ("gcp", "f1-micro"),
    ],
)
def test_a_machine_that_is_not_in_the_table_may_be_a_newer_one(cloud, name):
    assert machine_type(cloud, name) is None
    assert misspelled(cloud, name) is None
