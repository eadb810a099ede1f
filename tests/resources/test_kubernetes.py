import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.autoscaler._private.kuberay.autoscaling_config import _round_up_k8s_quantity

from kovar.resources import ACCELERATORS
from kovar.resources.kubernetes import (
    GKE_GPU_TYPES,
    is_spot_pod,
    parse_quantity,
    shares_gpu,
)

UNITS = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]


@given(st.decimals(0, 10**6, places=3), st.sampled_from(UNITS))
def test_a_quantity_is_rounded_up_as_ray_does(number, unit):
    text = f"{number}{unit}"
    assert parse_quantity(text) == _round_up_k8s_quantity(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", 1), ("1500m", 2), (8, 8), ("22Gi", 22 << 30), ("200G", 200 * 10**9), ("1e3", 1000)],
)
def test_quantities_that_manifests_hold(text, amount):
    assert parse_quantity(text) == amount


@pytest.mark.parametrize("text", ["", "22GB", "-1", "1 Gi", "ki", True, None, "nan", "1e999999"])
def test_other_text_is_no_quantity(text):
    with pytest.raises(ValueError, match="a quantity is"):
        parse_quantity(text)


def test_googles_names_of_gpus_lead_to_the_table():
    for names in GKE_GPU_TYPES.values():
        assert set(names) <= set(ACCELERATORS)
        assert not ACCELERATORS[names[-1]].memory_is_ambiguous or len(names) == 1


@pytest.mark.parametrize(
    ("selector", "is_spot"),
    [
        ({"cloud.google.com/gke-spot": "true"}, True),
        ({"karpenter.sh/capacity-type": "spot"}, True),
        ({"karpenter.sh/capacity-type": "on-demand"}, False),
        ({}, False),
    ],
)
def test_a_selector_tells_spot_machines(selector, is_spot):
    assert is_spot_pod(selector) is is_spot


def test_a_selector_tells_that_a_card_is_shared():
    assert shares_gpu({"cloud.google.com/gke-gpu-partition-size": "1g.5gb"})
    assert not shares_gpu({"cloud.google.com/gke-accelerator": "nvidia-l4"})
