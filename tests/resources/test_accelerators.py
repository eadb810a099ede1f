import re

import pytest

from kovar.precision import PRECISIONS
from kovar.resources import ACCELERATORS, accelerator, accelerator_memory
from kovar.resources.request import GPU_TYPES
from kovar.resources.tpu_slice import RAY_TPU_TYPES, TPU_TYPES

ENTRIES = list(ACCELERATORS.values())
GB, GIB = 10**9, 1 << 30

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=list(ACCELERATORS))


def test_names_are_constants_of_the_installed_ray():
    from ray.util.accelerators import accelerators

    known = {value for name, value in vars(accelerators).items() if name.isupper() or "x" in name}
    assert set(ACCELERATORS) <= known


def test_the_chips_that_specs_may_name_are_all_in_the_table():
    nvidia = {entry.name for entry in ENTRIES if entry.capability is not None}
    assert nvidia == set(GPU_TYPES)
    assert {entry.name for entry in ENTRIES if entry.kind == "tpu"} == set(RAY_TPU_TYPES.values())
    assert {"aws-neuron-core", "Intel-GAUDI", "AMD-Instinct-MI300X-OAM"} <= set(ACCELERATORS)


@every_entry
def test_an_entry_names_a_public_source(entry):
    assert re.fullmatch(r"https://[a-z0-9.-]+/\S+", entry.source)
    assert entry.title


@every_entry
def test_rates_are_of_precisions_that_kovar_knows_and_grow_as_numbers_shrink(entry):
    assert set(entry.flops) <= set(PRECISIONS) - {"auto"}
    order = [name for name in ("fp32", "tf32", "bf16", "fp8") if name in entry.flops]
    rates = [entry.flops[name] for name in order]
    assert rates == sorted(rates)
    assert entry.flops.get("fp16", 0) in (0, entry.flops.get("bf16", entry.flops.get("fp16")))


@every_entry
def test_figures_have_the_size_of_an_accelerators(entry):
    assert all(1e12 <= rate <= 1e16 for rate in entry.flops.values())
    assert list(entry.memory_sizes) == sorted(set(entry.memory_sizes))
    assert 8 * GB <= entry.memory_sizes[0] <= entry.memory_sizes[-1] <= 300 * GB
    assert entry.bandwidth is not None
    assert 0.1e12 <= entry.bandwidth <= 10e12


def test_tensor_rates_are_dense_and_not_those_for_sparse_matrices():
    dense = {"A100": 312, "H100": 989.5, "L4": 121, "L40S": 362, "B200": 2250, "A10G": 70}
    assert {name: ACCELERATORS[name].flops["bf16"] / 1e12 for name in dense} == dense
    assert ACCELERATORS["AMD-Instinct-MI300X-OAM"].flops["fp8"] == 2614.9e12


def test_chips_of_later_generations_are_faster():
    for line in (["V100", "A100", "H100", "B200"], ["T4", "L4"], ["TPU-V4", "TPU-V5P", "TPU-V7X"]):
        rates = [max(ACCELERATORS[name].flops.values()) for name in line]
        assert rates == sorted(set(rates))


def test_a_name_of_several_products_counts_as_the_one_with_the_least_memory():
    a100 = ACCELERATORS["A100"]
    assert a100.memory_is_ambiguous
    assert a100.memory_bytes == 40 * GB
    assert not ACCELERATORS["A100-80G"].memory_is_ambiguous


def test_a_chip_is_found_by_rays_name_or_by_the_tpus_generation():
    assert accelerator("H100") is ACCELERATORS["H100"]
    assert [accelerator(short) for short in TPU_TYPES] == [
        ACCELERATORS[RAY_TPU_TYPES[short]] for short in TPU_TYPES
    ]
    assert accelerator("GeForce-RTX-5090") is None
    assert accelerator(None) is None


@pytest.mark.parametrize(
    ("names", "memory"),
    [
        (("A100",), 40 * GB),
        (("A100", "A100-80G"), 80 * GB),
        (("v6e",), 32 * GIB),
        (("L4", "A100-80G"), 24 * GB),
        (("Private-Card", "T4"), 16 * GB),
        (("Private-Card",), None),
        ((), None),
    ],
)
def test_the_memory_of_one_card_follows_from_its_most_telling_name(names, memory):
    assert accelerator_memory(names) == memory


def test_the_table_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        ACCELERATORS["A100"] = ACCELERATORS["L4"]
    with pytest.raises(TypeError):
        ACCELERATORS["A100"].flops["fp8"] = 1.0
