import pytest
import torch

from kovar.errors import SpecError
from kovar.precision import Device
from kovar.resources import CpuRequest, GpuRequest
from kovar.settings import load_settings
from kovar.training.device import rank_device, rank_precision, rank_weights

PLAIN_CPU = Device("cpu", "a CPU", bf16_matrix_units=False)


def real() -> torch.device:
    return torch.device("cuda:1")


def test_a_rank_computes_on_what_ray_has_assigned():
    assert rank_device(real) == torch.device("cuda:1")
    with pytest.raises(SpecError, match="fp16 does not run on a CPU"):
        rank_precision("fp16", PLAIN_CPU, GpuRequest())


def test_on_a_simulated_node_the_cpu_stands_in_and_says_so(monkeypatch):
    monkeypatch.setenv("KOVAR_SIMULATED", "1")
    assert rank_device(real) == torch.device("cpu")
    chosen = rank_precision("fp16", PLAIN_CPU, GpuRequest())
    assert chosen.precision == "fp32"
    assert chosen.reason.startswith("SIMULATED: this CPU stands in for the requested gpu; fp32:")


def test_a_stand_in_without_bf16_keeps_weights_in_fp32(monkeypatch):
    fp32 = rank_precision("fp32", PLAIN_CPU, CpuRequest())
    with pytest.raises(SpecError, match="weights"):
        rank_weights("bf16", fp32, GpuRequest())
    monkeypatch.setenv("KOVAR_SIMULATED", "1")
    assert rank_weights("bf16", fp32, GpuRequest()) == "fp32"


def test_a_simulated_cpu_is_a_cpu(monkeypatch):
    monkeypatch.setenv("KOVAR_SIMULATED", "1")
    assert not rank_precision("fp32", PLAIN_CPU, CpuRequest()).reason.startswith("SIMULATED")


def test_a_simulation_is_no_unknown_variable_of_the_settings(tmp_path):
    assert load_settings({"KOVAR_HOME": str(tmp_path), "KOVAR_SIMULATED": "1"})
